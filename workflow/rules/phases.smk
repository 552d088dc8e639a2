# A target for each phase of each model, such as `snakemake ablate@smollm2`; dvc.yaml has a stage each.

for model in MODELS:

    rule:
        name:
            f"clean@{model}"
        input:
            f"{RESULTS}/{model}/clean.safetensors",

    rule:
        name:
            f"ablate@{model}"
        input:
            expand(f"{RESULTS}/{model}/sweeps/{{kind}}.json", kind=ABLATIONS),

    rule:
        name:
            f"experiments@{model}"
        input:
            expand(f"{RESULTS}/{model}/experiments/{{name}}.json", name=EXPERIMENTS),

    rule:
        name:
            f"tables@{model}"
        input:
            f"{RESULTS}/{model}/heads.parquet",
            expand(f"{RESULTS}/{model}/{{part}}_summaries.parquet", part=SUMMARIES),
