# Sourced: packages of Debian 12, without installing them.

# download_packages FOLDER ARCHITECTURE SUITE PACKAGE...: downloads packages of Debian 12 and of SUITE: `bookworm-security`, or
# `bookworm-backports` for PACKAGE/bookworm-backports. apt verifies Debian's signatures. The machine's own sources,
# architecture and packages do not matter.
download_packages() {
  local folder="$1" architecture="$2" suite="$3" key=/usr/share/keyrings/debian-archive-keyring.gpg work mirror=debian apt
  shift 3
  [ -f "$key" ] || apt_install debian-archive-keyring
  [ "$suite" != bookworm-security ] || mirror=debian-security
  work="$(mktemp -d)"
  mkdir -p "$folder" "$work"/{lists/partial,cache/archives/partial,parts}
  printf "deb [signed-by=$key] http://deb.debian.org/%s main\n" "debian bookworm" "$mirror $suite" >"$work/sources.list"
  apt=(apt-get -o "Dir::State=$work" -o "Dir::State::status=/dev/null" -o "Dir::Cache=$work/cache"
    -o "Dir::Etc::sourcelist=$work/sources.list" -o "Dir::Etc::sourceparts=$work/parts"
    -o "APT::Architecture=$architecture" -o "APT::Architectures::=$architecture" -o "APT::Sandbox::User=$(id -un)")
  quietly "${apt[@]}" update || die "apt-get could not list Debian's packages for $architecture"
  (cd "$folder" && quietly "${apt[@]}" download "$@") || die "apt-get could not download: $*"
  rm -rf "$work"
}
