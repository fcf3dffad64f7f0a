# shellcheck shell=bash
# A list of changes: shown, carried out, and undone by a file that is written before the first of them. Sourced by apply
# and irq-rps.

# Parallel: what is done (write, install), where, what is there now, what is to be there.
change_kinds=() change_paths=() change_old=() change_new=()

# Plans to write a text into a file of the kernel's.
# plan_write PATH OLD NEW
plan_write() {
    change_kinds+=(write) change_paths+=("$1") change_old+=("$2") change_new+=("$3")
}

# Plans to put a file in its place; nothing to do when it is there as it should be.
# plan_install PATH TEXT
plan_install() {
    if [ -e "$1" ] && [ "$(cat "$1")" = "$2" ]; then return; fi
    change_kinds+=(install) change_paths+=("$1") change_old+=("") change_new+=("$2")
}

show_changes() {
    local index
    for index in "${!change_kinds[@]}"; do
        case ${change_kinds[index]} in
            write) echo "${change_paths[index]}: ${change_old[index]} -> ${change_new[index]}" ;;
            install) echo "${change_paths[index]}: $([ -e "${change_paths[index]}" ] && echo replaced || echo new)" ;;
        esac
    done
}

# Writes the undo file, then does what is planned. One that fails is told and does not keep the others.
# carry_out UNDO_FILE
carry_out() {
    local undo=$1 index kind path failed=0
    [ ! -e "$undo" ] || fail "$undo is there already; undo it first, or name another with --undo-file"
    {
        echo "# Undoes what ${0##*/} did at $(date -u +%Y-%m-%dT%H:%M:%SZ): tuning/apply --undo FILE --yes"
        for index in "${!change_kinds[@]}"; do
            path=${change_paths[index]}
            if [ "${change_kinds[index]}" = write ]; then
                echo "write $path ${change_old[index]}"
            elif [ -e "$path" ]; then
                echo "restore $path"
            else
                echo "remove $path"
            fi
        done
    } > "$undo"
    for index in "${!change_kinds[@]}"; do
        kind=${change_kinds[index]} path=${change_paths[index]}
        "do_$kind" "$path" "${change_new[index]}" || { echo "$path: failed" >&2 && failed=1; }
    done
    echo "to undo: ${BASH_SOURCE[0]%/*}/apply --undo $undo --yes"
    return "$failed"
}

# The kernel takes a value in one write and may refuse it.
do_write() {
    { printf '%s\n' "$2" > "$1"; } 2>/dev/null
}

do_install() {
    mkdir -p "$(dirname "$1")" || return 1
    if [ -e "$1" ]; then cp -p "$1" "$1.before-kittiwake" || return 1; fi
    printf '%s\n' "$2" > "$1"
}

# Undoes what an undo file says, the last change first. It touches nothing but what such a file can name.
# undo FILE YES
undo() {
    local lines line kind path value index failed=0
    mapfile -t lines < "$1"
    for ((index = ${#lines[@]} - 1; index >= 0; index--)); do
        line=${lines[index]}
        [[ $line = '#'* || -z $line ]] && continue
        read -r kind path value <<< "$line"
        [[ $path != *..* ]] || fail "$1: \`$line\` is not from us"
        case "$kind $path" in
            'write /proc/sys/'* | 'write /proc/irq/'*/smp_affinity_list | 'write /sys/class/net/'*/queues/rx-*/rps_*) ;;
            'restore '*/90-kittiwake.conf | 'restore '*/kittiwake.service | 'restore '*/kittiwake.socket | 'restore '*/connections.conf | 'restore '*/kittiwake.nft) ;;
            'remove '*/90-kittiwake.conf | 'remove '*/kittiwake.service | 'remove '*/kittiwake.socket | 'remove '*/connections.conf | 'remove '*/kittiwake.nft) ;;
            *) fail "$1: \`$line\` is not from us" ;;
        esac
        echo "$kind $path $value"
        [ "$2" = 1 ] || continue
        case $kind in
            write) do_write "$path" "$value" ;;
            restore) mv "$path.before-kittiwake" "$path" ;;
            remove) rm -f "$path" ;;
        esac || { echo "$path: failed" >&2 && failed=1; }
    done
    return "$failed"
}
