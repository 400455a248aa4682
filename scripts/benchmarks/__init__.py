# SPDX-License-Identifier: Apache-2.0
"""The parts of scripts/benchmark.py.

The side that compares: cases.py (what is measured against what), processes.py
(each contender in a process of its own), turns.py (one runs while the others
wait), figures.py (statistics), tables.py (rows of a report).

The side that is measured: worker.py (requests and answers), and a module a
contender: ours.py, peer_torch.py, peer_flax.py, peer_transformers.py,
loss_memory.py, startup.py. Each has

    make(work, folder)   an object with `facts`, a dict, and `run(count)`,
                         which does its work `count` times and returns what
                         once took (or needed)
    peak_bytes()         the most memory that it has held

Nothing outside ours.py and loss_memory.py needs lmjax, so that peers may live
in an environment without it.
"""
