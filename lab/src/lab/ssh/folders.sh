# Sets data, the folder of datasets, and ours, the folder that all projects of this account share.

case $data in
'') data=$folder/data ;;
'~/'*) data=$HOME/${data#'~/'} ;;
/*) ;;
*) data=$HOME/$data ;;
esac
ours=$HOME/.cache/dl-remote-template # locks, which job has which GPU, tmux
