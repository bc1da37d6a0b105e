"""Files that are laid over an initramfs: the kernel unpacks archives one after the other, and the last one wins.

Holds: a pure function from names and bytes to an archive in the kernel's `newc` form.
"""

ALIGN = 4


def _padded(data):
    return data + b"\0" * (-len(data) % ALIGN)


def _entry(number, name, content, mode):
    name = name.encode() + b"\0"
    # ino, mode, uid, gid, nlink, mtime, filesize, four device numbers, namesize, check.
    fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0]
    header = b"070701" + b"".join(b"%08x" % value for value in fields)
    return _padded(header + name) + _padded(content)


def archive(files):
    """`files` is {path: (content, permissions)}; content that is None makes a directory. Directories that are not made
    here must be there already."""
    parts = [_entry(number, name, content or b"", (0o040000 if content is None else 0o100000) | mode)
             for number, (name, (content, mode)) in enumerate(files.items(), 1)]
    return b"".join(parts) + _entry(0, "TRAILER!!!", b"", 0)


def laid_over(initrd, files):
    return _padded(initrd) + archive(files)
