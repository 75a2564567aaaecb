# Prints the completion by an interactive zsh for each line when TAB is pressed after it, one per line.
# Usage: zsh -f complete_in_zsh.zsh DIRECTORY_OF_COMPLETION LINE...
zmodload zsh/zpty
zpty shell "TERM=dumb zsh -f -i"
zpty -w shell "fpath=($1 \$fpath); autoload -Uz compinit; compinit -D -u"
zpty -w shell '_show() { print -r -- "<$BUFFER>"; BUFFER= }; zle -N _show; bindkey "^X" _show; print re""ady'
zpty -r shell seen '*ready*'
for line in "${@:2}"; do
  zpty -w -n shell "$line"$'\t\x18'
  zpty -r shell seen '*<*>*'
  seen=${seen##*<}
  print -r -- "${seen%%>*}"
done
zpty -d shell
