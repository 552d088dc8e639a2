# Documents, and the token windows that each model sees of them.


rule sample_documents:
    input:
        files=on_every_node(
            [
                source["path"]
                for source in config["text"]["sources"].values()
                if source["kind"] == "file"
            ]
        ),
        code=code_of("sample_documents"),
    output:
        f"{RESULTS}/documents.parquet",
    log:
        f"{LOGS}/sample_documents.log",
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        text=config["text"],
        seed=config["seed"],
        wheels={
            source["wheel"]: config["wheels"][source["wheel"]]
            for source in config["text"]["sources"].values()
            if "wheel" in source
        },
    script:
        "../scripts/sample_documents.py"


rule cut_prompts:
    input:
        model=model_files,
        documents=rules.sample_documents.output[0],
        code=code_of("cut_prompts"),
    output:
        f"{RESULTS}/{{model}}/prompts.parquet",
    log:
        f"{LOGS}/{{model}}/cut_prompts.log",
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        text=config["text"],
        seed=config["seed"],
        model=model_params,
    script:
        "../scripts/cut_prompts.py"
