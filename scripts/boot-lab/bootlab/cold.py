"""A cold volume from an image, by the emulator of `ebs-prewarm lab`.

Holds: whatever happens inside, the volume is unmounted in the end.
"""

import json
import pathlib
import tempfile

from .shell import LabError, run, say


class ColdVolume:
    """`volume` is a file that reads like a volume made from a snapshot a moment ago."""

    def __init__(self, binary, image, model, seed, sets=()):
        self.binary, self.image, self.model, self.seed, self.sets = binary, image, model, seed, list(sets)

    def __enter__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="ebs-prewarm-cold-"))
        options = [part for pair in self.sets for part in ("--set", pair)]
        try:
            # Blocks that the image never held are not in its snapshot either.
            run(self.binary, "lab", "mount", self.image, self.directory, "--model", self.model, "--seed", self.seed,
                "--holes-unallocated", *options)
        except BaseException:
            self.directory.rmdir()
            raise
        self.volume = self.directory / "volume"
        return self

    def stats(self):
        return json.loads(run(self.binary, "--json", "lab", "stats", self.directory))

    def reset(self):
        """Makes it cold again and forgets what it saw."""
        run(self.binary, "lab", "reset", self.directory)

    def __exit__(self, *_):
        try:
            run(self.binary, "lab", "umount", self.directory)
        except LabError as error:
            # A mount namespace that someone made meanwhile keeps a copy; it goes with that namespace.
            say(f"warning: {error}")
        self.directory.rmdir()
