# The study: what is wanted. How it is made stands in workflow/rules.
from snakemake.utils import min_version

min_version("9.27")

if (
    "study" not in config
):  # --configfile replaces the default study instead of mixing with it

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/ablation.smk"
include: "workflow/rules/experiments.smk"
include: "workflow/rules/decomposition.smk"
include: "workflow/rules/claims.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/phases.smk"


rule all:
    default_target: True
    input:
        rules.summarise.output,
        rules.claims.output,
        study_figures(),


onsuccess:
    tell_findings()
