# shellcheck shell=sh
# shellcheck disable=SC2034 # The scripts that read this use them.
# Where things are installed, relative to the root; and what install.sh and uninstall.sh share. Read by `.`, not run.

PROGRAM=usr/sbin/ebs-prewarm
LIBRARY=usr/lib/ebs-prewarm
UNITS=usr/lib/systemd/system
INITRAMFS_TOOLS=usr/share/initramfs-tools
DRACUT=usr/lib/dracut/modules.d/90ebs-prewarm
MAN=usr/share/man/man8
COMPLETIONS_BASH=usr/share/bash-completion/completions/ebs-prewarm
COMPLETIONS_ZSH=usr/share/zsh/vendor-completions/_ebs-prewarm
COMPLETIONS_FISH=usr/share/fish/vendor_completions.d/ebs-prewarm.fish
DOCUMENTS=usr/share/doc/ebs-prewarm
# Enabled, since each says by itself when it has something to do.
ENABLED="ebs-prewarm.service ebs-prewarm-record.service ebs-prewarm-effect.service"
# By an administrator, if at all.
ENABLED_BY_CHOICE="ebs-prewarm-rest.service"

# fail MESSAGE HINT
fail() {
    printf 'error: %s\nhelp: %s\n' "$1" "$2" >&2
    exit 1
}

fail_usage() {
    printf 'error: %s\nhelp: see --help\n' "$1" >&2
    exit 2
}

# The root without a final slash: empty for / itself.
absolute_root() {
    case $1 in
    "" | /) ;;
    *)
        [ -d "$1" ] || fail "failed to find the folder \`$1\`" "make it first"
        (cd "$1" && pwd | sed 's,^/$,,')
        ;;
    esac
}

newest() {
    # shellcheck disable=SC2012 # Paths of our own making; their times are what is asked for.
    ls -t "$@" 2>/dev/null | head -n 1
}

# What makes the initramfs there.
initramfs_of() {
    if [ -e "$1/usr/sbin/mkinitramfs" ] || [ -e "$1/usr/sbin/update-initramfs" ]; then
        echo initramfs-tools
    elif [ -e "$1/usr/bin/dracut" ] || [ -e "$1/usr/sbin/dracut" ]; then
        echo dracut
    fi
}

# enable_units ROOT DRY_RUN
enable_units() {
    echo "enable $ENABLED"
    [ -z "$2" ] || return 0
    # By links, as `systemctl enable` makes them: an image's folder may have no systemctl that runs here.
    mkdir -p "$1/etc/systemd/system/sysinit.target.wants"
    for unit in $ENABLED; do
        ln -sf "/$UNITS/$unit" "$1/etc/systemd/system/sysinit.target.wants/$unit"
    done
    reload "$1"
}

disable_units() {
    echo "disable $ENABLED $ENABLED_BY_CHOICE"
    [ -z "$2" ] || return 0
    for unit in $ENABLED $ENABLED_BY_CHOICE; do
        rm -f "$1"/etc/systemd/system/*.wants/"$unit"
    done
}

# A running system alone is told.
reload() {
    if [ -z "$1" ] && [ -d /run/systemd/system ]; then
        echo "systemctl daemon-reload"
        systemctl daemon-reload
    fi
}
