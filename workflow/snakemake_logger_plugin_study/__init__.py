"""What a study tells while it runs: jobs done, running measurements, time left. Snakemake's logger `study`.

A profile switches it on (`logger: study`). Snakemake finds it by the name of this package.
"""

from .handler import LogHandler

__all__ = ["LogHandler"]
