# The sweeps: each ablation of every head, replayed from the clean run.

for ablation in ABLATIONS:

    rule:
        name:
            f"ablate_{ablation}"
        input:
            **clean_run(),
            code=code_of("ablate"),
        output:
            **shard_files(f"sweeps/{ablation}"),
        log:
            shard_log(f"sweeps/{ablation}"),
        # The longest first, so that all cores finish together.
        priority: config["ablations"][ablation]["prompts"]
        conda:
            "../envs/selfrepair.yaml"
        threads: SHARD_THREADS
        resources:
            **MODEL_RESOURCES,
        params:
            ablation=ablation,
            prompts=prompts_of_shard(ablation),
            settings=settings(
                *MODEL_SETTINGS,
                f"ablations.{ablation}.prompts",
                "sweep.store",
                "sweep.tokens",
            ),
        script:
            "../scripts/ablate.py"


rule gather_sweep:
    input:
        shards=shards_of_sweep,
        beside=sidecars_of_sweep,
        code=code_of("gather"),
    output:
        f"{RESULTS}/{{model}}/sweeps/{{ablation}}.json",
    log:
        f"{LOGS}/{{model}}/sweeps/{{ablation}}/gather.log",
    localrule: True
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        settings=settings("sweep.prompts_per_shard"),
    script:
        "../scripts/gather.py"
