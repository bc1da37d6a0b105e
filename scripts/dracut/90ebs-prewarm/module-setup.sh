#!/bin/bash
# Takes the static binary and the compiled profile into the initramfs, and the unit that starts it there.
# Without a profile there is nothing to warm, and nothing is taken in. An empty profile says that one will come: the
# binary is taken in, and `place-profile` lays the profile beside it without another initramfs.

check() {
    [[ -e ${dracutsysrootdir-}/etc/ebs-prewarm/boot.bin ]] || return 1
    [[ ! -e ${dracutsysrootdir-}/etc/ebs-prewarm/off ]] || return 1
    [[ -x ${dracutsysrootdir-}$(binary) ]] || return 1
    return 0
}

depends() {
    echo systemd
    return 0
}

binary() {
    if [[ -x ${dracutsysrootdir-}/usr/lib/ebs-prewarm/ebs-prewarm-static ]]; then
        echo /usr/lib/ebs-prewarm/ebs-prewarm-static
    else
        echo /usr/sbin/ebs-prewarm
    fi
}

install() {
    # dracut_install and inst bring the libraries of a binary that is not static.
    inst "$(binary)" /usr/sbin/ebs-prewarm
    if [[ -s ${dracutsysrootdir-}/etc/ebs-prewarm/boot.bin ]]; then
        inst_simple /etc/ebs-prewarm/boot.bin
    fi
    local unit
    for unit in ebs-prewarm-initramfs ebs-prewarm-initramfs-off; do
        # shellcheck disable=SC2154 # Set by dracut.
        inst_simple "$moddir/$unit.service" "$systemdsystemunitdir/$unit.service"
    done
    # shellcheck disable=SC2154
    $SYSTEMCTL -q --root "$initdir" add-wants sysinit.target ebs-prewarm-initramfs.service
    $SYSTEMCTL -q --root "$initdir" add-wants initrd.target ebs-prewarm-initramfs-off.service
}
