"""Running commands and saying what happens.

Holds: a command that fails stops the lab with its own words; progress goes to standard error, results to standard
output.
"""

import os
import subprocess
import sys
import time

STARTED = time.monotonic()


class LabError(Exception):
    """Something the lab needs is missing or failed; the message says what and, where it can, the remedy."""


def say(text):
    print(f"[{time.monotonic() - STARTED:7.1f} s] {text}", file=sys.stderr, flush=True)


def run(*command, quiet=True, stdin=None, env=None, cwd=None):
    """Runs to the end; its output is returned, and shown where it fails."""
    command = [str(part) for part in command]
    done = subprocess.run(command, input=stdin, capture_output=quiet, text=True, env=env, cwd=cwd)
    if done.returncode != 0:
        output = ((done.stdout or "") + (done.stderr or "")).strip()[-4000:]
        raise LabError(f"failed to run `{' '.join(command)}` (exit code {done.returncode})\n{output}")
    return done.stdout or ""


def privately(script, **variables):
    """A shell script in a mount namespace of its own: whatever it mounts is gone when it ends, also when killed."""
    env = dict(os.environ, LC_ALL="C", **{name: str(value) for name, value in variables.items()})
    run("unshare", "--mount", "--propagation", "private", "sh", "-euc", script, env=env)
