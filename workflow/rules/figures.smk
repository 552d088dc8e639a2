# Figures, drawn from tables alone: a rule each, for every model or for all of them together; the explorer page.
import ast

# What draws the pages in a browser, one copy for all of them.
VEGA = f"{PICTURES}/vega.js"
# The explorer page.
PAGE = f"{PICTURES}/index.html"


def models_of_figure(figure):
    """The models that a figure is drawn of."""
    return RELEASED if figure == catalogue.PUBLISHED else MODELS


def all_figures():
    """Every figure of the study, in every format that it asks for."""
    stems = {
        figure_stem(figure, model)
        for figure in FIGURES
        for model in models_of_figure(figure)
    }
    files = [f"{stem}.{ending}" for stem in sorted(stems) for ending in FORMATS]
    return [VEGA, PAGE, *files]


def figure_files(figure):
    """Named outputs of one figure; the SVG, or else the PNG, goes into Snakemake's report."""
    stem = figure_stem(figure, "{model}")
    files = {ending: f"{stem}.{ending}" for ending in FORMATS}

    def drawn_of(wildcards):
        if figure.scope == "study":
            return "all models"
        # Between braces the report would look for a wildcard.
        return title_of(wildcards.model).replace("{", "(").replace("}", ")")

    def labels(wildcards):
        about = {"figure": figure.key, "name": figure.name}
        return about | {"model": drawn_of(wildcards)}

    shown = "svg" if "svg" in files else "png"
    files[shown] = report(
        files[shown],
        category="Figures",
        subcategory=drawn_of,
        labels=labels,
        caption="../report/figure.rst",
    )
    return files


def figure_tables(figure):
    """The tables that a figure is drawn from, by name; of all models for a figure of the study."""
    if figure.scope == "study":
        return {name: expand(table(name), model=MODELS) for name in figure.tables}
    return {name: [table(name)] for name in figure.tables}


def notes_for_figure(figure):
    """Where the notes on each model of a figure stand."""
    path = rules.rank_tokens.output.provenance
    return expand(path, model=MODELS) if figure.scope == "study" else [path]


def weights_notes(figure):
    """The keys of the config that say what is to be known of the weights of the models in a figure."""
    models = MODELS if figure.scope == "study" else ["{model}"]
    return [f"models.{model}.weights" for model in models]


def about_figure(figure):
    """What a figure shows, for Snakemake's report: the docstring of its module."""
    path = Path("workflow/selfrepair/figures", f"{figure.module}.py")
    return ast.get_docstring(ast.parse(Path(workflow.basedir, path).read_text()))


rule:
    name:
        "save_vega"
    input:
        code=code_of("save_vega"),
    output:
        VEGA,
    log:
        f"{LOGS}/save_vega.log",
    localrule: True
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    script:
        "../scripts/save_vega.py"


for figure in FIGURES:

    rule:
        name:
            f"draw_{figure.key}"
        input:
            **figure_tables(figure),
            notes=notes_for_figure(figure),
            # A page names it and does not read it.
            vega=ancient(VEGA),
            code=code_of("draw", f"selfrepair.figures.{figure.module}"),
        output:
            **figure_files(figure),
        log:
            (
                f"{LOGS}/draw_{figure.key}.log"
                if figure.scope == "study"
                else f"{LOGS}/{{model}}/draw_{figure.key}.log"
            ),
        localrule: True
        conda:
            "../envs/selfrepair.yaml"
        threads: 1
        params:
            module=figure.module,
            tables=list(figure.tables),
            about=about_figure(figure),
            settings=settings(*weights_notes(figure), "figures.formats"),
        script:
            "../scripts/draw.py"


# Tables of a model that the explorer page reads.
PAGE_TABLES = (
    *("heads", "prompts", "token_spans", "tokens", "scale_ratios"),
    *("top_neurons", "neuron_counts", "repair_map"),
)


def figures_of_page():
    """The paths of figures without their endings, seen from the page, by model and the figure's key."""
    return {
        model: {
            figure.key: figure_stem(figure, model).removeprefix(f"{PICTURES}/")
            for figure in catalogue.FIGURES
        }
        for model in MODELS
    }


rule:
    name:
        "write_page"
    input:
        **{name: expand(table(name), model=MODELS) for name in PAGE_TABLES},
        **{
            f"sweep_{name}": expand(
                f"{RESULTS}/{{model}}/sweeps/{name}.json", model=MODELS
            )
            for name in ABLATIONS
        },
        heads_record=expand(rules.decompose.output.provenance, model=MODELS),
        clean_record=expand(rules.rank_tokens.output.provenance, model=MODELS),
        documents=rules.sample_documents.output[0],
        claims=rules.judge_claims.output.table,
        over_models=rules.judge_claims.output.over_models,
        beside=shards_of(MODELS, "sweeps", *ABLATIONS),
        vega=VEGA,
        bundle=on_every_node(["workflow/page/dist/page.html"])[0],
        code=code_of("write_page"),
    output:
        PAGE,
    log:
        f"{LOGS}/write_page.log",
    localrule: True
    conda:
        "../envs/selfrepair.yaml"
    threads: 1
    params:
        models=MODELS,
        ablations=ABLATIONS,
        tables=PAGE_TABLES,
        figures=figures_of_page(),
        settings=settings(
            "study", "figures.formats", *about_models("weights", "control_of")
        ),
    script:
        "../scripts/write_page.py"
