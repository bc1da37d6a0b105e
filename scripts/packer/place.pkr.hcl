# Second step: the profile into the candidate's disk, which is attached to a helper and not booted.
#
#   packer build -only='amazon-ebssurrogate.final' -var candidate_snapshot=snap-... -var helper_ami=ami-... \
#     -var profile=boot.bin scripts/packer

source "amazon-ebssurrogate" "final" {
  region        = var.region
  instance_type = var.instance_type
  source_ami    = var.helper_ami
  ssh_username  = var.ssh_username
  ami_name      = "ebs-prewarm-{{timestamp}}"

  ami_virtualization_type = "hvm"
  ena_support             = true

  launch_block_device_mappings {
    device_name           = "/dev/sdf"
    snapshot_id           = var.candidate_snapshot
    volume_type           = "gp3"
    iops                  = 3000
    throughput            = 125
    delete_on_termination = true
  }
  ami_root_device {
    source_device_name    = "/dev/sdf"
    device_name           = var.root_device_name
    volume_type           = "gp3"
    delete_on_termination = true
  }
}

build {
  sources = ["source.amazon-ebssurrogate.final"]

  provisioner "shell" {
    inline = ["mkdir -p /tmp/provision"]
  }
  provisioner "file" {
    source      = "${path.root}/provision/"
    destination = "/tmp/provision"
  }
  provisioner "file" {
    source      = "${path.root}/../place-profile"
    destination = "/tmp/provision/place-profile"
  }
  provisioner "file" {
    source      = var.package
    destination = "/tmp/${basename(var.package)}"
  }
  provisioner "file" {
    source      = var.profile
    destination = "/tmp/boot.bin"
  }
  provisioner "shell" {
    # The helper needs the program, to check that the profile is for this disk. The volume is the only other disk.
    inline = [
      "sudo dpkg -i /tmp/${basename(var.package)} || sudo rpm -U /tmp/${basename(var.package)}",
      "chmod +x /tmp/provision/*",
      "disk=$(lsblk -dnpo NAME,TYPE | awk '$2 == \"disk\" {print $1}' | grep -v \"$(findmnt -no SOURCE / | sed 's/p*[0-9]*$//')\")",
      "sudo /tmp/provision/place ${var.place_options} $disk /tmp/boot.bin",
    ]
  }
}
