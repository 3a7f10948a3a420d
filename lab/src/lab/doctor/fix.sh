# Fixes what lab doctor found, without root. Variables: what (linger: jobs survive the logout; terminal: standard
# input is its description, as infocmp prints it).

case $what in
linger)
    said=$(loginctl enable-linger 2>&1) || fail "loginctl enable-linger on $hostname: $said"
    ;;
terminal)
    said=$(tic -x -o "$HOME/.terminfo" - 2>&1) || fail "tic on $hostname: $(echo "$said" | tail -n 1)"
    ;;
esac
