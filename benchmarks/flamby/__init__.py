"""FLamby's protocol for Fed-Heart-Disease and Fed-TCGA-BRCA, and the same with better inputs."""
