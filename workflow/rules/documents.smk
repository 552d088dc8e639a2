# Documents: the text that every model of the study reads.

TEXT_SOURCES = config["text"]["sources"].values()


rule sample_documents:
    input:
        files=on_every_node(
            [source["path"] for source in TEXT_SOURCES if source["kind"] == "file"]
        ),
        code=code_of("sample_documents"),
    output:
        f"{RESULTS}/documents.parquet",
    log:
        f"{LOGS}/sample_documents.log",
    localrule: True
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        settings=settings(
            "text.prompts",
            "text.tokens_per_prompt",
            "text.sources",
            "seed",
            *sorted({f"wheels.{s['wheel']}" for s in TEXT_SOURCES if "wheel" in s}),
        ),
    script:
        "../scripts/sample_documents.py"
