#!/bin/bash
# Takes the static binary and the compiled profile into the initramfs, and the unit that starts it there.
# Without a profile there is nothing to warm, and nothing is taken in.

check() {
    [[ -r ${dracutsysrootdir-}/etc/ebs-prewarm/boot.bin ]] || return 1
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
    inst_simple /etc/ebs-prewarm/boot.bin
    # shellcheck disable=SC2154 # Set by dracut.
    inst_simple "$moddir/ebs-prewarm-initramfs.service" "$systemdsystemunitdir/ebs-prewarm-initramfs.service"
    # shellcheck disable=SC2154
    $SYSTEMCTL -q --root "$initdir" add-wants sysinit.target ebs-prewarm-initramfs.service
}
