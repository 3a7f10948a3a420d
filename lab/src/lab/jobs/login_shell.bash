# Every bash of a job reads this first (BASH_ENV). In a login shell (bash -lc), whose profile may have
# changed them, it restores the variables that lab gave the job.

# shellcheck disable=SC1090
if [ -r "$LAB_BASH_ENV" ]; then . "$LAB_BASH_ENV"; fi # the machine's own, often that of modules
if shopt -q login_shell; then
    while IFS= read -r -d '' lab_pair; do
        case " $LAB_GIVEN " in *" ${lab_pair%%=*} "*) export "${lab_pair?}" ;; esac
    done <"/proc/$$/environ"
    unset lab_pair
    PATH=$VIRTUAL_ENV/bin:$PATH
fi
