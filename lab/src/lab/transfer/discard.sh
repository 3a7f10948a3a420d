# Removes a staging folder, to make room on a full disk. Variables: stage (its path).
# Needs: places.sh

case $stage in "$data"/.*.incoming-*) rm -rf "$stage" ;; esac
