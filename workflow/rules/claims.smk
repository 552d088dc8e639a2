# Each claim of the paper beside what was measured, and the numbers that the authors released.


rule claims:
    input:
        depth=expand(f"{RESULTS}/{{model}}/depth.parquet", model=MODELS),
        summaries=expand(
            f"{RESULTS}/{{model}}/{{part}}_summaries.parquet",
            model=MODELS,
            part=SUMMARIES,
        ),
        code=code_of("judge_claims"),
    output:
        table=f"{RESULTS}/claims.parquet",
        metrics=f"{RESULTS}/claims.json",
        markdown=f"{RESULTS}/claims.md",
        page=report(
            f"{RESULTS}/claims.html",
            category="Claims",
            caption="../report/claims.rst",
        ),
    log:
        f"{LOGS}/claims.log",
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        # Seen from the page, which lies in results/<study>/.
        figures={
            config["models"][model].get("title", model): {
                key: f"../../{figure_stem(key, model)}" for key in FIGURE_TABLES
            }
            for model in MODELS
        },
    script:
        "../scripts/judge_claims.py"


rule compare_published:
    input:
        heads=rules.decompose.output.heads,
        code=code_of("compare_published"),
    output:
        table=f"{RESULTS}/{{model}}/published.parquet",
        agreement=f"{RESULTS}/{{model}}/published_agreement.parquet",
        metrics=f"{RESULTS}/{{model}}/published.json",
    log:
        f"{LOGS}/{{model}}/compare_published.log",
    wildcard_constraints:
        model="|".join(map(re.escape, PUBLISHED)) or "(?!)",
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        location=config.get("published", {}).get("location"),
        released=lambda wildcards: PUBLISHED[wildcards.model],
        seed=config["seed"],
        resamples=config["statistics"]["resamples"],
    script:
        "../scripts/compare_published.py"
