#!/bin/sh
# Installs what `cargo build` has made, with units, the initramfs hook or module, man pages and completions.
#
# Holds: run twice it leaves the same; below --root nothing of this system is touched; a profile is never touched. The
# same files as the packages have, so that uninstall.sh removes them (it reads `layout` below).
set -eu

usage() {
    cat <<'TEXT'
Usage: scripts/install.sh [--root DIR] [--binary FILE] [--static FILE] [--initramfs KIND] [--dry-run]

Installs ebs-prewarm below DIR (or $DESTDIR; / if neither is given) and prints what it does.

  --root DIR        install below this folder, as for an image
  --binary FILE     the full program (target/release/ebs-prewarm)
  --static FILE     the static build for an initramfs (the newest target/*/initramfs/ebs-prewarm)
  --initramfs KIND  initramfs-tools, dracut, both, none; auto looks at what DIR has (auto)
  --dry-run         print what would be done
  --help            print this

Build first:
  cargo build --release && .ci/static

Nothing is warmed before there is a profile: /etc/ebs-prewarm/boot.bin. scripts/uninstall.sh removes all of this.
TEXT
}

here=$(cd "$(dirname "$0")" && pwd)
repository=$(dirname "$here")
# shellcheck source=scripts/layout.sh
. "$here/layout.sh"

root=${DESTDIR:-}
binary=$repository/target/release/ebs-prewarm
static=
initramfs=auto
dry_run=
while [ $# -gt 0 ]; do
    case $1 in
    --root | --binary | --static | --initramfs)
        [ $# -ge 2 ] || fail_usage "$1 needs a value"
        case $1 in
        --root) root=$2 ;;
        --binary) binary=$2 ;;
        --static) static=$2 ;;
        --initramfs) initramfs=$2 ;;
        esac
        shift 2
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
[ -n "$static" ] || static=$(newest "$repository"/target/*/initramfs/ebs-prewarm)
[ -x "$binary" ] || fail "failed to find the program \`$binary\`" "cargo build --release, or name it with --binary"
[ -x "$static" ] || fail "failed to find the static build \`${static:-target/*/initramfs/ebs-prewarm}\`" \
    ".ci/static, or name it with --static"
case $initramfs in
auto) kinds=$(initramfs_of "$root") ;;
both) kinds="initramfs-tools dracut" ;;
none) kinds= ;;
initramfs-tools | dracut) kinds=$initramfs ;;
*) fail_usage "unknown kind of initramfs \`$initramfs\`" ;;
esac

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# put MODE SOURCE PLACE: PLACE is relative to the root.
put() {
    echo "install $root/$3"
    [ -n "$dry_run" ] || install -D -m "$1" "$2" "$root/$3"
}

put 755 "$binary" "$PROGRAM"
put 755 "$static" "$LIBRARY/ebs-prewarm-static"
put 755 "$here/place-profile" "$LIBRARY/place-profile"
put 755 "$here/boot-ring.sh" "$LIBRARY/boot-ring.sh"
for unit in "$here"/systemd/*.service; do
    put 644 "$unit" "$UNITS/$(basename "$unit")"
done
for kind in $kinds; do
    case $kind in
    initramfs-tools)
        for script in hooks/ebs-prewarm scripts/init-top/ebs-prewarm scripts/local-bottom/ebs-prewarm; do
            put 755 "$here/initramfs-tools/$script" "$INITRAMFS_TOOLS/$script"
        done
        ;;
    dracut)
        put 755 "$here/dracut/90ebs-prewarm/module-setup.sh" "$DRACUT/module-setup.sh"
        for unit in "$here"/dracut/90ebs-prewarm/*.service; do
            put 644 "$unit" "$DRACUT/$(basename "$unit")"
        done
        # For systemd to know it after the change of root; the module keeps its own, being copied alone into images.
        put 644 "$here/dracut/90ebs-prewarm/ebs-prewarm-initramfs.service" "$UNITS/ebs-prewarm-initramfs.service"
        ;;
    esac
done
[ -n "$kinds" ] || echo "neither initramfs-tools nor dracut: ebs-prewarm.service warms, a little later"

mkdir "$scratch/man"
"$binary" man "$scratch/man" >/dev/null
for page in "$scratch"/man/*.8; do
    put 644 "$page" "$MAN/$(basename "$page")"
done
for shell in bash zsh fish; do
    "$binary" completions $shell >"$scratch/$shell"
done
put 644 "$scratch/bash" "$COMPLETIONS_BASH"
put 644 "$scratch/zsh" "$COMPLETIONS_ZSH"
put 644 "$scratch/fish" "$COMPLETIONS_FISH"
for document in README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE; do
    put 644 "$repository/$document" "$DOCUMENTS/$document"
done
put 644 "$repository/profiles/README.md" "$DOCUMENTS/GUIDE.md"
put 644 "$repository/profiles/FORMATS.md" "$DOCUMENTS/FORMATS.md"
put 644 "$here/grub-record.cfg" "$DOCUMENTS/grub-record.cfg"
echo "directory $root/etc/ebs-prewarm"
[ -n "$dry_run" ] || mkdir -p "$root/etc/ebs-prewarm"
enable_units "$root" "$dry_run"

echo "done. Nothing is warmed before there is a profile in $root/etc/ebs-prewarm/boot.bin:"
echo "$root/$DOCUMENTS/GUIDE.md says how one is made."
