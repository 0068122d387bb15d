"""The miniature's foundation models, trained again; they ship with the repository.

    snakemake --profile local miniature_foundation     trains and judges them, resumable, below <results>/foundation
    snakemake --profile local install_foundation       and copies them to resources/miniature

Loss curves, sample grids and reconstructions are outputs. Checkpoints lie in undeclared folders `work`.
"""


rule foundation_corpus:
    output:
        corpus=directory("<results>/foundation/corpus"),
    log:
        "<logs>/foundation/corpus.log",
    benchmark:
        "<benchmarks>/foundation/corpus.tsv"
    conda:
        "../../envs/compute.yaml"
    threads: jobs.needs("fit").threads
    resources:
        mem_mb=jobs.memory("fit"),
        runtime=jobs.runtime("fit"),
        gpu=jobs.needs("fit").gpu,
    params:
        job=jobs.foundation,
        folder="<results>/foundation",
        part="corpus",
        device=device,
    message:
        "Foundation models: {params.part}"
    shell:
        "python -m gen4det.stages.foundation {params.part} --settings {params.job:q}"
        " --folder {params.folder:q} --device {params.device} 2>&1 | tee_log {log:q}"


use rule foundation_corpus as foundation_autoencoder with:
    input:
        rules.foundation_corpus.output.corpus,
    output:
        model=directory("<results>/foundation/models/autoencoder"),
        loss="<results>/foundation/autoencoder/loss.png",
    log:
        "<logs>/foundation/autoencoder.log",
    benchmark:
        "<benchmarks>/foundation/autoencoder.tsv"
    params:
        job=jobs.foundation,
        folder="<results>/foundation",
        part="autoencoder",
        device=device,


use rule foundation_corpus as foundation_diffusion with:
    input:
        rules.foundation_corpus.output.corpus,
        rules.foundation_autoencoder.output.model,
    output:
        model=directory("<results>/foundation/models/stable-diffusion"),
        loss="<results>/foundation/diffusion/loss.png",
    log:
        "<logs>/foundation/diffusion.log",
    benchmark:
        "<benchmarks>/foundation/diffusion.tsv"
    params:
        job=jobs.foundation,
        folder="<results>/foundation",
        part="diffusion",
        device=device,


use rule foundation_corpus as foundation_inpainting with:
    input:
        rules.foundation_diffusion.output.model,
    output:
        model=directory("<results>/foundation/models/gligen-inpainting"),
        loss="<results>/foundation/inpainting/loss.png",
    log:
        "<logs>/foundation/inpainting.log",
    benchmark:
        "<benchmarks>/foundation/inpainting.tsv"
    params:
        job=jobs.foundation,
        folder="<results>/foundation",
        part="inpainting",
        device=device,


use rule foundation_corpus as foundation_clip with:
    input:
        rules.foundation_corpus.output.corpus,
        rules.foundation_diffusion.output.model,
    output:
        model=directory("<results>/foundation/models/clip"),
        loss="<results>/foundation/clip/loss.png",
    log:
        "<logs>/foundation/clip.log",
    benchmark:
        "<benchmarks>/foundation/clip.tsv"
    params:
        job=jobs.foundation,
        folder="<results>/foundation",
        part="clip",
        device=device,


use rule foundation_corpus as foundation_aesthetic with:
    input:
        rules.foundation_clip.output.model,
    output:
        model=directory("<results>/foundation/models/aesthetic"),
        loss="<results>/foundation/aesthetic/loss.png",
        scores="<results>/foundation/aesthetic/scores.png",
    log:
        "<logs>/foundation/aesthetic.log",
    benchmark:
        "<benchmarks>/foundation/aesthetic.tsv"
    params:
        job=jobs.foundation,
        folder="<results>/foundation",
        part="aesthetic",
        device=device,


use rule foundation_corpus as foundation_backbone with:
    input:
        rules.foundation_corpus.output.corpus,
    output:
        model="<results>/foundation/models/backbone/model.safetensors",
        loss="<results>/foundation/backbone/loss.png",
    log:
        "<logs>/foundation/backbone.log",
    benchmark:
        "<benchmarks>/foundation/backbone.tsv"
    params:
        job=jobs.foundation,
        folder="<results>/foundation",
        part="backbone",
        device=device,


use rule foundation_corpus as foundation_judge with:
    input:
        rules.foundation_corpus.output.corpus,
        rules.foundation_diffusion.output.model,
        rules.foundation_inpainting.output.model,
    output:
        "<results>/foundation/judge/judgement.json",
        "<results>/foundation/judge/samples.png",
        "<results>/foundation/judge/reconstructions.png",
        "<results>/foundation/judge/inpainting.png",
    log:
        "<logs>/foundation/judge.log",
    benchmark:
        "<benchmarks>/foundation/judge.tsv"
    params:
        job=jobs.foundation,
        folder="<results>/foundation",
        part="judge",
        device=device,


rule miniature_foundation:
    input:
        rules.foundation_inpainting.output,
        rules.foundation_clip.output,
        rules.foundation_aesthetic.output,
        rules.foundation_backbone.output,
        rules.foundation_judge.output,


use rule foundation_corpus as install_foundation with:
    input:
        rules.miniature_foundation.input,
    output:
        touch("<results>/foundation/installed"),
    log:
        "<logs>/foundation/install.log",
    benchmark:
        "<benchmarks>/foundation/install.tsv"
    params:
        job=jobs.foundation,
        folder="<results>/foundation",
        part="install",
        device=device,
