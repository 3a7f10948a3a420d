# Where the datasets are, and what belongs to no single project.

case $data in
'') data=$folder/data ;;
'~/'*) data=$HOME/${data#'~/'} ;;
/*) ;;
*) data=$HOME/$data ;;
esac
ours=$HOME/.cache/dl-remote-template # locks, which job has which GPU, tmux
