# Gives a staging folder up, to make room on a full disk. Variables: stage (its path).

case $stage in "$data"/.*.incoming-*) rm -rf "$stage" ;; esac
