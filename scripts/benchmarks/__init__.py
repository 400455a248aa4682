# SPDX-License-Identifier: Apache-2.0
"""The parts of scripts/benchmark.py; see README.md in this folder.

The comparing side: cases.py (what is compared with what), processes.py (one
process per contender), interleaving.py (one runs while the others wait),
report_rows.py (statistics), tables.py (Markdown).

The measured side: worker.py (requests and responses), and one module per
contender: lmjax_contender.py, peer_torch.py, peer_flax.py,
peer_transformers.py, loss_memory.py, startup.py. Each has

    make(work, folder)   returns an object with `facts`, a dict, and
                         `run(count)`, which runs the workload `count` times and
                         returns the time (or memory) of one run
    peak_bytes()         returns its peak memory

Only lmjax_contender.py and loss_memory.py import lmjax, so that peers may run
in an environment without it.
"""
