"""Recording a command that does not use lab: any script, unedited."""
