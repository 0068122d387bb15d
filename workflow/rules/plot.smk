"""Tables, figures and pages of generated images, one of each per study."""


rule table:
    input:
        metrics=jobs.metrics,
        sets=jobs.set_measures,
    output:
        csv=report(
            "<results>/tables/{study}.csv",
            caption="../report/table.rst",
            category="Studies",
            subcategory="{study}",
            labels={"page": "table"},
        ),
        markdown="<results>/tables/{study}.md",
        html="<results>/tables/{study}.html",
        latex="<results>/tables/{study}.tex",
        record="<results>/tables/{study}.csv.record.json",
    log:
        "<logs>/table/{study}.log",
    benchmark:
        "<benchmarks>/table/{study}.tsv"
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("plot").threads
    resources:
        mem_mb=jobs.memory("plot"),
        runtime=jobs.runtime("plot"),
    params:
        job=jobs.table,
        metrics=jobs.metrics_by_arm,
        sets=jobs.set_measures_by_name,
    message:
        "Table {wildcards.study}"
    shell:
        "python -m gen4det.stages.plot table --settings {params.job:q} --metrics {params.metrics:q}"
        " --sets {params.sets:q} --output {output.csv:q}"
        " 2>&1 | tee_log {log:q}"


rule figure:
    input:
        metrics=jobs.metrics,
    output:
        pdf="<results>/figures/{study}.pdf",
        png=report(
            "<results>/figures/{study}.png",
            caption="../report/figure.rst",
            category="Studies",
            subcategory="{study}",
            labels={"page": "figure"},
        ),
        record="<results>/figures/{study}.pdf.record.json",
    log:
        "<logs>/figure/{study}.log",
    benchmark:
        "<benchmarks>/figure/{study}.tsv"
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("plot").threads
    resources:
        mem_mb=jobs.memory("plot"),
        runtime=jobs.runtime("plot"),
    params:
        job=jobs.table,
        metrics=jobs.metrics_by_arm,
    message:
        "Figure {wildcards.study}"
    shell:
        "python -m gen4det.stages.plot figure --settings {params.job:q} --metrics {params.metrics:q}"
        " --output {output.pdf:q}"
        " 2>&1 | tee_log {log:q}"


rule gallery:
    input:
        synthetic=jobs.gallery_sets,
        drawn=jobs.gallery_files,
    output:
        pdf="<results>/figures/{study}_gallery.pdf",
        png=report(
            "<results>/figures/{study}_gallery.png",
            caption="../report/gallery.rst",
            category="Studies",
            subcategory="{study}",
            labels={"page": "generated images"},
        ),
        record="<results>/figures/{study}_gallery.pdf.record.json",
    log:
        "<logs>/gallery/{study}.log",
    benchmark:
        "<benchmarks>/gallery/{study}.tsv"
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("plot").threads
    resources:
        mem_mb=jobs.memory("plot"),
        runtime=jobs.runtime("plot"),
    params:
        job=jobs.gallery,
    message:
        "Gallery of generated images of {wildcards.study}"
    shell:
        "python -m gen4det.stages.plot gallery --settings {params.job:q} --synthetic {input.synthetic:q}"
        " --output {output.pdf:q}"
        " 2>&1 | tee_log {log:q}"


rule loss_curve:
    input:
        "<results>/detectors/{dataset}/{detector}/{arm}/seed{seed}/losses.csv",
    output:
        report(
            "<results>/detectors/{dataset}/{detector}/{arm}/seed{seed}/losses.png",
            caption="../report/losses.rst",
            category="Trainings",
            labels={
                "data": "{dataset}",
                "detector": "{detector}",
                "arm": "{arm}",
                "seed": "{seed}",
            },
        ),
    log:
        "<logs>/loss_curve/{dataset}/{detector}/{arm}/seed{seed}.log",
    benchmark:
        "<benchmarks>/loss_curve/{dataset}/{detector}/{arm}/seed{seed}.tsv"
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("plot").threads
    resources:
        mem_mb=jobs.memory("plot"),
        runtime=jobs.runtime("plot"),
    params:
        job=jobs.loss_curve,
    message:
        "Curve of the losses in {input}"
    shell:
        "python -m gen4det.stages.loss_curve --settings {params.job:q} --losses {input:q} --output {output:q}"
        " 2>&1 | tee_log {log:q}"


use rule loss_curve as fit_curve with:
    input:
        "<results>/engines/{dataset}/{engine}/{step}/losses.csv",
    output:
        report(
            "<results>/engines/{dataset}/{engine}/{step}/losses.png",
            caption="../report/losses.rst",
            category="Trainings",
            labels={"data": "{dataset}", "engine": "{engine}", "step": "{step}"},
        ),
    log:
        "<logs>/fit_curve/{dataset}/{engine}/{step}.log",
    benchmark:
        "<benchmarks>/fit_curve/{dataset}/{engine}/{step}.tsv"


rule category_gains:
    input:
        metrics=jobs.metrics,
    output:
        csv="<results>/tables/{study}_categories.csv",
        pdf="<results>/figures/{study}_categories.pdf",
        png=report(
            "<results>/figures/{study}_categories.png",
            caption="../report/figure.rst",
            category="Studies",
            subcategory="{study}",
            labels={"page": "categories"},
        ),
        record="<results>/tables/{study}_categories.csv.record.json",
    log:
        "<logs>/category_gains/{study}.log",
    benchmark:
        "<benchmarks>/category_gains/{study}.tsv"
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("plot").threads
    resources:
        mem_mb=jobs.memory("plot"),
        runtime=jobs.runtime("plot"),
    params:
        job=jobs.category_gains,
        metrics=jobs.metrics_by_arm,
    message:
        "Categories of {wildcards.study}"
    shell:
        "python -m gen4det.stages.category_gains --settings {params.job:q} --metrics {params.metrics:q}"
        " --figure {output.pdf:q} --output {output.csv:q}"
        " 2>&1 | tee_log {log:q}"
