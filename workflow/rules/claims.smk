# What the study found, each claim of the paper beside it, and the numbers that the authors released.


rule summarise:
    input:
        depth=expand(table("depth"), model=MODELS),
        provenance=expand(f"{RESULTS}/{{model}}/heads.json", model=MODELS),
        code=code_of("summarise"),
    output:
        metrics=f"{RESULTS}/headline.json",
        findings=report(
            f"{RESULTS}/findings.md",
            category="Findings",
            caption="../report/findings.rst",
        ),
    log:
        f"{LOGS}/summarise.log",
    localrule: True
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        models=MODELS,
        settings=settings(*about_models("title", "control_of")),
    script:
        "../scripts/summarise.py"


rule judge_claims:
    input:
        depth=expand(table("depth"), model=MODELS),
        summaries=[
            path
            for experiment in EXPERIMENTS.values()
            for path in expand(table(experiment.summaries), model=MODELS)
        ],
        provenance=expand(f"{RESULTS}/{{model}}/heads.json", model=MODELS),
        code=code_of("judge_claims"),
    output:
        table=f"{RESULTS}/claims.parquet",
        over_models=f"{RESULTS}/claims_over_models.parquet",
        metrics=f"{RESULTS}/claims.json",
        markdown=f"{RESULTS}/claims.md",
        page=report(
            f"{RESULTS}/claims.html",
            category="Claims",
            caption="../report/claims.rst",
        ),
    log:
        f"{LOGS}/judge_claims.log",
    localrule: True
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        figures=figures_by_title(),
        models=MODELS,
        settings=settings("study", *about_models("title", "control_of", "shape")),
    script:
        "../scripts/judge_claims.py"


rule compare_published:
    input:
        heads=table("heads"),
        code=code_of("compare_published"),
    output:
        table=table("published"),
        agreement=table("published_agreement"),
        metrics=f"{RESULTS}/{{model}}/published.json",
    log:
        f"{LOGS}/{{model}}/compare_published.log",
    wildcard_constraints:
        model="|".join(map(re.escape, RELEASED)) or "(?!)",
    localrule: True
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        settings=settings(
            "published.location",
            "published.tables.{model}",
            "seed",
            "statistics.resamples",
        ),
    script:
        "../scripts/compare_published.py"
