# shellcheck shell=bash
# Reading a sysctl.d file of ours, and comparing it with the machine. Sourced by check and apply.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# keys[i] = values[i] by rules[i]; optional[i] is 1 where kernels may be without it.
keys=() rules=() values=() optional=()

fail() {
    echo "${0##*/}: $1" >&2
    exit 2
}

# The text of one of our files for N connections: the one that is checked in, or what the gateway prints for another N.
# file_for PART PATH
file_for() {
    if [ -z "$connections" ]; then
        cat "$here/$2"
    else
        "${kittiwake:?}" doctor --connections "$connections" --print "$1"
    fi
}

# Reads sysctl.d text from stdin into the arrays.
read_settings() {
    local line key rule=""
    while IFS= read -r line; do
        case $line in
            '#: '*) rule=${line#'#: '} ;;
            '#'* | '') ;;
            *' = '*)
                key=${line%% = *}
                optional+=("$([[ $key = -* ]] && echo 1 || echo 0)")
                key=${key#-}
                [[ $key =~ ^[a-z0-9_.-]+$ ]] || fail "\`$key\` is not the name of a setting"
                [[ ${line#* = } =~ ^[0-9\ ]+$ ]] || fail "$key: \`${line#* = }\` is not a number or several"
                [[ $rule =~ ^(at\ least|at\ most|exactly)$ ]] || fail "$key has no rule"
                keys+=("$key") rules+=("$rule") values+=("${line#* = }")
                rule=""
                ;;
            *) fail "\`$line\` is no setting" ;;
        esac
    done
    [ "${#keys[@]}" -gt 0 ] || fail "there are no settings"
}

# Where a setting is on this machine.
path_of() {
    echo "/proc/sys/${1//.//}"
}

# A setting's values on this machine with single blanks between them; fails when it is not there.
found_value() {
    local words
    read -r -a words 2>/dev/null < "$(path_of "$1")" || return 1
    [ "${#words[@]}" -gt 0 ] || return 1
    echo "${words[*]}"
}

# What a setting should be: each number that its rule allows stays as it was found.
# towards RULE FOUND WANTED
towards() {
    local rule=$1 have want result=() index
    read -r -a have <<< "$2"
    read -r -a want <<< "$3"
    if [ "${#have[@]}" -ne "${#want[@]}" ]; then
        echo "$3"
        return
    fi
    for index in "${!want[@]}"; do
        case $rule in
            'at least') result+=("$((have[index] >= want[index] ? have[index] : want[index]))") ;;
            'at most') result+=("$((have[index] <= want[index] ? have[index] : want[index]))") ;;
            *) result+=("${want[index]}") ;;
        esac
    done
    echo "${result[*]}"
}
