"""From the shards to one synthetic set: what is offered for training, and what is not and why."""


rule filter:
    input:
        dataset=jobs.dataset,
        shards=jobs.labels,
        images=jobs.shard_images,
        aesthetic=jobs.ratings,
        calibration=jobs.calibration,
        detections=jobs.detections,
    output:
        synthetic="<results>/synthetic/{dataset}/{engine}/set.json",
        verdicts="<results>/synthetic/{dataset}/{engine}/verdicts.arrow",
        fractions="<results>/synthetic/{dataset}/{engine}/filter.csv",
        record="<results>/synthetic/{dataset}/{engine}/set.json.record.json",
    log:
        "<logs>/filter/{dataset}/{engine}.log",
    benchmark:
        "<benchmarks>/filter/{dataset}/{engine}.tsv"
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("filter").threads
    resources:
        mem_mb=jobs.memory("filter"),
        runtime=jobs.runtime("filter"),
    params:
        job=jobs.filter,
    message:
        "Choose from what {wildcards.engine} drew for {wildcards.dataset}"
    shell:
        "python -m gen4det.stages.filter --settings {params.job:q} --dataset {input.dataset:q}"
        " --shards {input.shards:q} --aesthetic {input.aesthetic:q} --calibration {input.calibration:q}"
        " --detections {input.detections:q} --workers {threads} --output {output.synthetic:q}"
        " 2>&1 | tee_log {log:q}"


rule filter_page:
    input:
        synthetic="<results>/synthetic/{dataset}/{engine}/set.json",
        verdicts="<results>/synthetic/{dataset}/{engine}/verdicts.arrow",
        fractions="<results>/synthetic/{dataset}/{engine}/filter.csv",
        drawn=jobs.set_files,
    output:
        pdf="<results>/synthetic/{dataset}/{engine}/filter.pdf",
        png=report(
            "<results>/synthetic/{dataset}/{engine}/filter.png",
            caption="../report/filter.rst",
            category="Filters",
            labels={"data": "{dataset}", "engine": "{engine}"},
        ),
        record="<results>/synthetic/{dataset}/{engine}/filter.pdf.record.json",
    log:
        "<logs>/filter_page/{dataset}/{engine}.log",
    benchmark:
        "<benchmarks>/filter_page/{dataset}/{engine}.tsv"
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("plot").threads
    resources:
        mem_mb=jobs.memory("plot"),
        runtime=jobs.runtime("plot"),
    params:
        job=jobs.filter_page,
    message:
        "What the filter of {wildcards.engine} kept for {wildcards.dataset}, and what not"
    shell:
        "python -m gen4det.stages.filter_page --settings {params.job:q} --synthetic {input.synthetic:q}"
        " --fractions {input.fractions:q} --output {output.pdf:q}"
        " 2>&1 | tee_log {log:q}"
