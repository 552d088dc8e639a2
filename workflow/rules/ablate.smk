# The sweeps: each ablation of every head, on tokens drawn of each, replayed from the clean run.


for ablation in ABLATIONS:

    # By a script of its own, so that what was drawn without it does not follow from its code.
    of_prompts = draws_prompts(ablation)
    drawing = "draw_prompts" if of_prompts else "draw_tokens"

    rule:
        name:
            f"{drawing}_{ablation}"
        input:
            clean=rules.rank_tokens.output.tensors,
            beside=found_beside([rules.rank_tokens.output.provenance]),
            code=code_of(drawing),
        output:
            f"{RESULTS}/{{model}}/drawn/{ablation}.parquet",
        log:
            f"{LOGS}/{{model}}/{drawing}_{ablation}.log",
        localrule: True
        conda:
            "../envs/selfrepair.yaml"
        threads: 1
        params:
            ablation=ablation,
            settings=settings(
                f"ablations.{ablation}.prompts",
                *[f"ablations.{ablation}.prompts_per_head"] * of_prompts,
                f"ablations.{ablation}.tokens_per_head",
                f"ablations.{ablation}.random_tokens_per_head",
                "seed",
            ),
        script:
            (
                "../scripts/draw_prompts.py"
                if of_prompts
                else "../scripts/draw_tokens.py"
            )

    # What is drawn of a head depends on no other head, so every head's draw is made, and those not wanted left out.
    if SOME_HEADS:

        rule:
            name:
                f"select_heads_{ablation}"
            input:
                drawn=f"{RESULTS}/{{model}}/drawn/{ablation}.parquet",
                parts=rules.find_parts.output[0],
                code=code_of("select_heads"),
            output:
                f"{RESULTS}/{{model}}/swept/{ablation}.parquet",
            log:
                f"{LOGS}/{{model}}/select_heads_{ablation}.log",
            localrule: True
            conda:
                "../envs/selfrepair.yaml"
            threads: 1
            params:
                settings=settings(
                    "sweep.heads", "sweep.prompts_per_shard", "sweep.checked_heads"
                ),
            script:
                "../scripts/select_heads.py"

    rule:
        name:
            f"ablate_{ablation}"
        input:
            **clean_run(),
            **drawn_tokens(ablation),
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
                "sweep.store",
                "sweep.tokens",
                f"ablations.{ablation}.map",
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
