# Tables: self-repair and its parts per head and by depth, and what the study found.


rule decompose:
    input:
        sweeps=expand(
            f"{RESULTS}/{{{{model}}}}/sweeps/{{ablation}}.json", ablation=ABLATIONS
        ),
        beside=indexed("sweeps", *ABLATIONS),
        code=code_of("decompose"),
    output:
        heads=f"{RESULTS}/{{model}}/heads.parquet",
        depth=f"{RESULTS}/{{model}}/depth.parquet",
        provenance=f"{RESULTS}/{{model}}/heads.json",
    log:
        f"{LOGS}/{{model}}/decompose.log",
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        ablations=ABLATIONS,
        title=title_of,
        seed=config["seed"],
        resamples=config["statistics"]["resamples"],
    script:
        "../scripts/decompose.py"


rule summarise:
    input:
        depth=expand(f"{RESULTS}/{{model}}/depth.parquet", model=MODELS),
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
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    script:
        "../scripts/summarise.py"
