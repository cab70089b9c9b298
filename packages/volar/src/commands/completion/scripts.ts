/** The shells' side of completion: small scripts that ask `volar __complete` about the line as it is written. Pure. */

export const SHELLS = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof SHELLS)[number];

const BASH = `# Completion of volar in bash. In this shell: source <(volar completion bash)
_volar_complete() {
    local line=\${COMP_LINE:0:COMP_POINT} breaks="" kept="" candidate
    local -a words
    read -ra words <<< "$line"
    if [[ $line == *[[:space:]] ]]; then words+=(""); fi
    local word=\${words[\${#words[@]}-1]} program=\${words[0]/#\\~/$HOME}
    # What bash takes for the word begins behind the last of these.
    if [[ $COMP_WORDBREAKS == *=* ]]; then breaks+="="; fi
    if [[ $COMP_WORDBREAKS == *:* ]]; then breaks+=":"; fi
    if [[ -n $breaks && $word == *[$breaks]* ]]; then kept=\${word%"\${word##*[$breaks]}"}; fi
    COMPREPLY=()
    while IFS=$'\\t' read -r candidate _; do
        case $candidate in
            :files) compopt -o default 2>/dev/null ;;
            :folders) compopt -o dirnames 2>/dev/null ;;
            *:)
                compopt -o nospace 2>/dev/null
                COMPREPLY+=("\${candidate#"$kept"}")
                ;;
            *) COMPREPLY+=("\${candidate#"$kept"}") ;;
        esac
    done < <("$program" __complete -- "\${words[@]:1}" 2>/dev/null)
}
complete -F _volar_complete volar
`;

const ZSH = `#compdef volar
# Completion of volar in zsh. In this shell: source <(volar completion zsh); for all: as _volar in a folder of $fpath
_volar() {
    local line word about kind=""
    local -a candidates places
    for line in "\${(@f)$("\${(Q)words[1]}" __complete -- "\${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
        word=\${line%%$'\\t'*}
        about=\${line#*$'\\t'}
        case $line in
            "") ;;
            :files|:folders) kind=$line ;;
            *:$'\\t'*) places+=("$word") ;;
            *) candidates+=("\${word//:/\\\\:}\${about:+:$about}") ;;
        esac
    done
    if (( $#places )); then compadd -S "" -- $places; fi
    if (( $#candidates )); then _describe -t volar volar candidates; fi
    case $kind in
        :files) _files ;;
        :folders) _files -/ ;;
    esac
}
if [[ $funcstack[1] == _volar ]]; then _volar "$@"; else compdef _volar volar; fi
`;

const FISH = `# Completion of volar in fish. In this shell: volar completion fish | source
function __volar_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program $words[1]
    set -e words[1]
    for line in ($program __complete -- $words "$current" 2>/dev/null)
        switch $line
            case :files
                __fish_complete_path "$current"
            case :folders
                __fish_complete_directories "$current"
            case '*'
                echo $line
        end
    end
end
complete -c volar -f -a '(__volar_complete)'
`;

/** The script for a shell. */
export const SCRIPTS: Readonly<Record<Shell, string>> = { bash: BASH, zsh: ZSH, fish: FISH };
