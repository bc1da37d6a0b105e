"""The platform's agent: imports much, then reads the beginning, the end and parts of large files, as a loader of
weights or of an index does. Deterministic: each boot reads the same bytes."""

import argparse
import asyncio
import concurrent.futures
import csv
import ctypes
import decimal
import email.mime.multipart
import hashlib
import http.server
import importlib
import json
import logging.handlers
import mmap
import multiprocessing
import pathlib
import random
import sqlite3
import ssl
import tarfile
import unittest
import urllib.request
import xml.dom.minidom
import zipfile

import cryptography.x509
import jinja2
import requests
import yaml

PIECE = 256 << 10
OPEN_AT_ONCE = 4


def load(path):
    """Header, end, and pieces from all over: what a memory-mapped index is touched at."""
    size = path.stat().st_size
    places = random.Random(path.name).sample(range(1, size // PIECE - 1), 8)
    seen = hashlib.sha1()
    with path.open("rb") as file:
        view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        for at in [0, size - PIECE, *(place * PIECE for place in places)]:
            seen.update(view[at : at + (64 << 10)])
    return seen.hexdigest()


def main():
    models = sorted(pathlib.Path("/var/lib/node/models").glob("*.bin"))
    with concurrent.futures.ThreadPoolExecutor(OPEN_AT_ONCE) as pool:
        sums = dict(zip((model.name for model in models), pool.map(load, models)))
    pathlib.Path("/run/node").mkdir(exist_ok=True)
    pathlib.Path("/run/node/agent.json").write_text(json.dumps(sums))


main()
