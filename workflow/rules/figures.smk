# Figures, drawn from tables alone: a rule each, for every model or for all of them together.
import ast

# What draws the pages in a browser, one copy for all of them.
VEGA = f"{PICTURES}/vega.js"


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
    return [VEGA, *files]


def figure_files(figure):
    """Named outputs of one figure; the SVG, or else the PNG, goes into Snakemake's report."""
    stem = figure_stem(figure, "{model}")
    files = {ending: f"{stem}.{ending}" for ending in FORMATS}

    def drawn_of(wildcards):
        return "all models" if figure.scope == "study" else title_of(wildcards.model)

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
