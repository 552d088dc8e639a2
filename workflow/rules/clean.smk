# The unchanged model: the token windows that it sees, where its parts are, the clean pass over all of the windows,
# its top tokens.


rule cut_prompts:
    input:
        model=model_files,
        documents=rules.sample_documents.output[0],
        code=code_of("cut_prompts"),
    output:
        f"{RESULTS}/{{model}}/prompts.parquet",
    log:
        f"{LOGS}/{{model}}/cut_prompts.log",
    localrule: True
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        settings=settings(
            *WEIGHTS,
            "text.prompts",
            "text.tokens_per_prompt",
            "text.bos",
            "text.sources",
            "seed",
        ),
    script:
        "../scripts/cut_prompts.py"


# What shows text token by token needs this table instead of the tokenizer, which comes with the weights.
rule place_tokens:
    input:
        model=model_files,
        documents=rules.sample_documents.output[0],
        prompts=rules.cut_prompts.output[0],
        code=code_of("place_tokens"),
    output:
        f"{RESULTS}/{{model}}/token_spans.parquet",
    log:
        f"{LOGS}/{{model}}/place_tokens.log",
    localrule: True
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        settings=settings(*WEIGHTS),
    script:
        "../scripts/place_tokens.py"


rule find_parts:
    input:
        model=model_files,
        code=code_of("find_parts"),
    output:
        f"{RESULTS}/{{model}}/parts.json",
    log:
        f"{LOGS}/{{model}}/find_parts.log",
    localrule: True
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        settings=settings(*WEIGHTS),
    script:
        "../scripts/find_parts.py"


rule clean_pass:
    input:
        model=model_files,
        parts=rules.find_parts.output[0],
        prompts=rules.cut_prompts.output[0],
        code=code_of("clean_pass"),
    output:
        **shard_files("clean"),
    log:
        shard_log("clean"),
    conda:
        "../envs/selfrepair.yaml"
    threads: SHARD_THREADS
    resources:
        **MODEL_RESOURCES,
    params:
        prompts=prompts_of_shard(CLEAN),
        settings=settings(*MODEL_SETTINGS, "clean.candidate_share"),
    script:
        "../scripts/clean_pass.py"


rule rank_tokens:
    input:
        shards=shards_of_clean,
        beside=sidecars_of_clean,
        code=code_of("rank_tokens"),
    output:
        tensors=f"{RESULTS}/{{model}}/clean.safetensors",
        provenance=f"{RESULTS}/{{model}}/clean.json",
    log:
        f"{LOGS}/{{model}}/rank_tokens.log",
    localrule: True
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        settings=settings("clean.prompts_per_shard"),
    script:
        "../scripts/rank_tokens.py"


rule measure_precision:
    input:
        model=model_files,
        parts=rules.find_parts.output[0],
        prompts=rules.cut_prompts.output[0],
        code=code_of("measure_precision"),
    output:
        f"{RESULTS}/{{model}}/precision.json",
    log:
        f"{LOGS}/{{model}}/measure_precision.log",
    conda:
        "../envs/selfrepair.yaml"
    threads: threads_of_job()
    resources:
        **MODEL_RESOURCES,
    params:
        settings=settings(*MODEL_SETTINGS),
    script:
        "../scripts/measure_precision.py"
