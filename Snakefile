# The study: what is wanted. How it is made stands in workflow/rules.
from snakemake.utils import min_version

min_version("9.27")

if (
    "study" not in config
):  # --configfile replaces the default study instead of mixing with it

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/messages.smk"
include: "workflow/rules/dependencies.smk"
include: "workflow/rules/model_jobs.smk"
include: "workflow/rules/documents.smk"
include: "workflow/rules/clean.smk"
include: "workflow/rules/ablate.smk"
include: "workflow/rules/check.smk"
include: "workflow/rules/experiments.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/claims.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/phases.smk"
include: "workflow/rules/everything.smk"


rule all:
    default_target: True
    input:
        rules.documents.input,
        all_of_models(),
        rules.claims.input,
        all_figures(),
