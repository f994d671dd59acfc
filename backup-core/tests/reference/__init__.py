"""A reference reader of the repository format, written from docs/format.md alone.

It is meant to be compared with the document line by line: every module names the sections that it stands
for, and does things in their order. It reads; it never writes to a repository. Run it beside this directory:

    python3 -m reference --help

It needs Python 3.11 and the packages cryptography, argon2-cffi, blake3 and zstandard.
"""
