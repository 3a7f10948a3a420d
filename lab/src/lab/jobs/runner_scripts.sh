# Writes the scripts that jobs run to $folder/lab/<hash>, once. Variables: scripts (the hash), archive
# (a tar file of them in base64; "": they were not sent). Exit code 76: they are missing.

write_scripts() { # sets scripts_folder
    scripts_folder=$folder/lab/$scripts
    [ -e "$scripts_folder/job_command.sh" ] && return
    [ -n "$archive" ] || exit 76
    new=$scripts_folder.$hostname.$$
    mkdir -p "$new" && printf %s "$archive" | base64 -d | tar -xf - -C "$new" &&
        { mv -T "$new" "$scripts_folder" || [ -e "$scripts_folder/job_command.sh" ]; } 2>/dev/null
    written=$?
    rm -rf "$new"
    [ $written = 0 ] || fail "$scripts_folder cannot be written on $hostname: is its disk full?"
}
