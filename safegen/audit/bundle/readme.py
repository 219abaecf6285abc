"""The README of a bundle: what each file is, in plain words."""

from __future__ import annotations

from typing import Final

WORDS: Final = """\
What is in this folder
======================

These are records of a safegen ledger: a list of what a generator of AI video did, to which entries are only ever added.
{selection}
Nothing here needs to be believed. The records come with proofs, and the proofs can be checked by anyone.

How to check it
---------------

You need Python 3.9 or later (https://www.python.org) and nothing else: no other program, no network.

    python verify.py --key "{vkey}"

The key above is the one that the operator handed over with this folder. Ask for it again by another way (a letter, the
operator's web site, an earlier folder) and use that one: whoever forged everything here would have put in a key of
their own. The program says for each record whether it holds, and ends with exit code 0 if all of it does, with 1 if
anything does not, and with 5 if all of it does under the key in this folder and you gave no other. You can read the
program before you run it: it is a text file, the same in every bundle that this version of safegen writes. Files that
you add to this folder yourself are named as not listed; keep them elsewhere.

The files
---------

README.txt            This text.
verify.py             The program that checks everything.
CONTENTS              The name and SHA-256 of every other file. `sha256sum -c CONTENTS` checks these too.
SIGNATURE             The operator's signature (Ed25519) over CONTENTS.
ledger.vkey           The public key that the ledger is signed with.
checkpoint            What the ledger's key signed: how many entries the ledger has, and a fingerprint of all of them
                      (c2sp.org/tlog-checkpoint).
selection.json        What was asked for: which times, which clips.
entries.jsonl         The records, one on each line, as JSON: when, what (`kind`), which clip (`content_id`), which file
                      (`asset_sha256`), which model, which policy, what was decided (`action`), and the rest in `body`.
                      Prompts are not in it, only commitments to them.
proofs/               One file for each record, named by its number: the proof that the record stands in the ledger at
                      that place, and was not changed since (c2sp.org/tlog-proof).
{optional}
What this shows, and what it does not
-------------------------------------

If the check succeeds, each record stood in the ledger, word for word, when the checkpoint was signed. It does not show
that a record tells the truth. {complete}
It does not show by itself that the ledger was never rewritten before the checkpoint: for that, keep the file
`checkpoint`, and ask next time for a bundle with a proof from it (`safegen audit export --since checkpoint`).
"""

EARLIER: Final = """\
earlier-checkpoint    A checkpoint of this ledger from before.
consistency           The proof that the ledger of the earlier checkpoint is how the present one began: nothing that it
                      covers was changed or taken out.
"""
CERTIFICATES: Final = """\
certificates/         The certificates that the files of these records were signed with, named by their SHA-256.
"""
MANIFESTS: Final = """\
manifests/            The C2PA manifests (https://c2pa.org) of these clips as the operator keeps them, named by clip.
"""
ALL: Final = "All entries of the ledger are here, and the program checks that none is left out."
SOME: Final = (
    "It does not show that these are all the\nrecords that answer what was asked: entries.jsonl holds those that the "
    "operator chose to hand over."
)
