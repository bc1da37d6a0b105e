#!/bin/sh
# Removes what install.sh installed, and nothing else.
#
# Holds: profiles and recordings stay, unless --purge is given; folders that others use stay.
set -eu

usage() {
    cat <<'TEXT'
Usage: scripts/uninstall.sh [--root DIR] [--purge] [--dry-run]

Removes ebs-prewarm from DIR (or $DESTDIR; / if neither is given) and prints what it does.

  --root DIR  remove from below this folder
  --purge     remove profiles (/etc/ebs-prewarm) and recordings (/var/lib/ebs-prewarm) too
  --dry-run   print what would be done
  --help      print this

An initramfs that holds the warmer keeps it until it is made anew: update-initramfs -u, or dracut --force.
TEXT
}

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/layout.sh
. "$here/layout.sh"

root=${DESTDIR:-}
purge=
dry_run=
while [ $# -gt 0 ]; do
    case $1 in
    --root)
        [ $# -ge 2 ] || fail_usage "$1 needs a value"
        root=$2
        shift 2
        ;;
    --purge)
        purge=yes
        shift
        ;;
    --dry-run)
        dry_run=yes
        shift
        ;;
    --help | -h)
        usage
        exit 0
        ;;
    *) fail_usage "unknown argument \`$1\`" ;;
    esac
done
root=$(absolute_root "$root")

# take PATH...: files; a link that leads nowhere counts.
take() {
    for path in "$@"; do
        if [ -e "$path" ] || [ -L "$path" ]; then
            echo "remove $path"
            [ -n "$dry_run" ] || rm -f "$path"
        fi
    done
}

# take_folder PATH...: only where it is empty.
take_folder() {
    for path in "$@"; do
        [ -n "$dry_run" ] || rmdir "$path" 2>/dev/null || true
    done
}

disable_units "$root" "$dry_run"
take "$root/$PROGRAM" "$root/$LIBRARY/ebs-prewarm-static" "$root/$LIBRARY/place-profile" "$root/$LIBRARY/boot-ring.sh"
take "$root/$UNITS"/ebs-prewarm.service "$root/$UNITS"/ebs-prewarm-*.service
for script in hooks/ebs-prewarm scripts/init-top/ebs-prewarm scripts/local-bottom/ebs-prewarm; do
    take "$root/$INITRAMFS_TOOLS/$script"
done
take "$root/$DRACUT"/*
take "$root/$MAN"/ebs-prewarm.8 "$root/$MAN"/ebs-prewarm-*.8
take "$root/$COMPLETIONS_BASH" "$root/$COMPLETIONS_ZSH" "$root/$COMPLETIONS_FISH"
take "$root/$DOCUMENTS"/*
if [ -n "$purge" ]; then
    echo "remove $root/etc/ebs-prewarm and $root/var/lib/ebs-prewarm"
    [ -n "$dry_run" ] || rm -rf "$root/etc/ebs-prewarm" "$root/var/lib/ebs-prewarm"
fi
take_folder "$root/$LIBRARY" "$root/$DRACUT" "$root/$DOCUMENTS" "$root/etc/ebs-prewarm" "$root/var/lib/ebs-prewarm"
[ -n "$dry_run" ] || reload "$root"
for kept in "$root/etc/ebs-prewarm" "$root/var/lib/ebs-prewarm"; do
    if [ -d "$kept" ] && [ -z "$dry_run" ]; then echo "kept $kept: --purge removes it"; fi
done
echo "done. An initramfs that holds the warmer keeps it until it is made anew."
