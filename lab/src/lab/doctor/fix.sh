# Fixes what lab doctor found, without root. Variables: what (linger: jobs survive the logout; terminal: standard
# input is its description, as infocmp prints it).

case $what in
linger)
    output=$(loginctl enable-linger 2>&1) || fail "loginctl enable-linger on $hostname: $output"
    ;;
terminal)
    output=$(tic -x -o "$HOME/.terminfo" - 2>&1) || fail "tic on $hostname: $(echo "$output" | tail -n 1)"
    ;;
esac
