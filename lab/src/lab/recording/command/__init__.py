"""Recording a command that knows nothing of lab: any script, unedited."""
