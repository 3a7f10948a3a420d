# Runs the lines of machines.toml's prelude in a login shell, then prints its exported variables as
# lines of sh on descriptor 3. Arguments: a mark, and each line. The last line printed is
# "MARK entered" or "MARK failed LINE".

lab_mark=$1
shift
trap 'printf "%s failed %s\n" "$lab_mark" "$lab_line" >&3' EXIT
for lab_line; do
    eval "$lab_line" || exit
done
trap - EXIT
lab_quote="'\\''"
for lab_name in $(compgen -e); do
    case $lab_name in _ | SHLVL | PWD | OLDPWD) continue ;; esac
    printf "export %s='%s'\n" "$lab_name" "${!lab_name//\'/$lab_quote}" >&3
done
printf '%s entered\n' "$lab_mark" >&3
