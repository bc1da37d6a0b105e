variable "region" {
  type    = string
  default = "eu-central-1"
}

variable "instance_type" {
  type    = string
  default = "m6i.large"
}

variable "source_ami" {
  type        = string
  description = "The image to start from: a Debian, Ubuntu or Amazon Linux 2023."
  default     = "ami-00000000000000000"
}

variable "ssh_username" {
  type    = string
  default = "admin"
}

variable "package" {
  type        = string
  description = "ebs-prewarm as a .deb or .rpm (.ci/packages builds both)."
  default     = "target/package/ebs-prewarm_0.1.0-1_amd64.deb"
}

variable "candidate_snapshot" {
  type        = string
  description = "Second step: the snapshot of the candidate's root volume."
  default     = "snap-00000000000000000"
}

variable "helper_ami" {
  type        = string
  description = "Second step: any image that is not of the candidate's family, as two root filesystems of one UUID in one machine may be mistaken for each other."
  default     = "ami-00000000000000000"
}

variable "root_device_name" {
  type        = string
  description = "Second step: the root device's name in the candidate image."
  default     = "/dev/xvda"
}

variable "place_options" {
  type        = string
  description = "Second step: options of `place`, such as --no-initramfs for an image that boots without one."
  default     = ""
}

variable "profile" {
  type        = string
  description = "Second step: the compiled profile of the candidate's reference boot."
  default     = "boot.bin"
}
