# Removes a staging folder, to make room on a full disk. Variables: stage (its path).
# Needs: folders.sh

case $stage in "$data"/.*.incoming-*) rm -rf "$stage" ;; esac
