# First step: an image with the package, an initramfs that holds the warmer, and tracing at its next boot.
#
#   packer build -only='amazon-ebs.candidate' -var source_ami=ami-... scripts/packer
#
# Put what your nodes are made of before `prepare`: what comes after it moves blocks that are to be recorded.

source "amazon-ebs" "candidate" {
  region        = var.region
  instance_type = var.instance_type
  source_ami    = var.source_ami
  ssh_username  = var.ssh_username
  ami_name      = "ebs-prewarm-candidate-{{timestamp}}"
}

build {
  sources = ["source.amazon-ebs.candidate"]

  provisioner "shell" {
    inline = ["mkdir -p /tmp/provision"]
  }
  provisioner "file" {
    source      = "${path.root}/provision/"
    destination = "/tmp/provision"
  }
  provisioner "file" {
    source      = var.package
    destination = "/tmp/${basename(var.package)}"
  }
  provisioner "shell" {
    inline = [
      "sudo sh /tmp/provision/prepare /tmp/${basename(var.package)}",
      "sudo sh /tmp/provision/clean",
      "rm -r /tmp/provision /tmp/${basename(var.package)}",
    ]
  }
}
