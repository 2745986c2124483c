#!/usr/bin/env bash
#
# Builds the virtual kernel: User Mode Linux with time travel, from the
# distribution's linux-source package. No root; nothing is installed.
#
#   build-uml.sh [--kernel VERSION] [--hz 100|250|300|1000] [--source DIR|TARBALL] [--jobs N] [--force]
#                [--print]
#
#   --kernel V   the version, such as 6.1, of the distribution's package
#                linux-source-V (default: the newest that is there)
#   --hz N       timer frequency (default 250): the size of the timer wheel's slots
#   --source X   a kernel source tree or tarball instead of the distribution's package;
#                `--kernel` of halfopen knows it by the first two numbers of its release
#   --jobs N     compile with N jobs (default: all processors)
#   --force      build even if it has been built
#   --print      say where the kernel is, build nothing; exit 1 if it is not there
#
#   HALFOPEN_UML=FILE         use this ready binary: nothing is built
#   HALFOPEN_UML_SOURCE=X     as --source
#   HALFOPEN_UML_WORK=DIR     where to unpack and compile (2 GB for a while;
#                             default: a temporary directory beside the result)
#
# The last line on standard output is the path of the binary; everything else
# goes to standard error. It takes 2 to 8 minutes once, and a second from then on.
#
# Where things are, with CACHE = ${XDG_CACHE_HOME:-~/.cache}/halfopen/uml:
#
#   CACHE/<version>-hz<HZ>-<digest>/linux    the kernel; the digest is over the source,
#                                            HZ, uml.config and how this script builds
#   CACHE/<version>-hz<HZ>-<digest>/config   the complete configuration
#   CACHE/linux-hz<HZ>                       a symbolic link to the kernel built last for
#                                            this HZ without --kernel: what programs look for
#   CACHE/linux-<X.Y>-hz<HZ>                 the same for each version
#
# Exit codes: 0 ready, 1 not ready or the build failed, 2 bad usage, 3 something
# is missing (named, all of it, with the command that installs it).

set -euo pipefail
shopt -s nullglob

HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
readonly HERE
readonly CONFIG=$HERE/uml.config
# By which people call it: `halfopen kernel build` runs it too.
readonly NAME=${CALLED_AS:-$0}
readonly CACHE=${XDG_CACHE_HOME:-${HOME:?neither XDG_CACHE_HOME nor HOME is set}/.cache}/halfopen/uml
readonly TOOLS=(gcc make flex bison bc xz ld tar sha256sum flock)

hz=250
kernel=
source=${HALFOPEN_UML_SOURCE:-}
jobs=$(nproc)
force=false
print=false
build=
compiler=

say() { printf '%s\n' "$*" >&2; }
die() { local code=$1; shift; printf "$NAME: %s\n" "$@" >&2; exit "$code"; }

main() {
    read_arguments "$@"
    if [[ -n ${HALFOPEN_UML:-} ]]; then
        [[ -f $HALFOPEN_UML && -x $HALFOPEN_UML ]] ||
            die 1 "HALFOPEN_UML=$HALFOPEN_UML is not an executable file"
        say "Using the ready kernel that HALFOPEN_UML names."
        printf '%s\n' "$HALFOPEN_UML"
        return
    fi
    local link=$CACHE/linux${kernel:+-$kernel}-hz$hz
    if $print; then
        [[ -x $link ]] || die 1 "no virtual kernel${kernel:+ $kernel} for HZ=$hz yet: run $NAME${kernel:+ --kernel $kernel} --hz $hz"
        printf '%s\n' "$link"
        return
    fi

    find_source
    local key directory
    key=$(key)
    directory=$CACHE/$key
    mkdir -p -- "$CACHE"
    # One build at a time for each kernel: whoever comes second finds it built.
    exec 9>"$CACHE/.lock-$key"
    if ! flock --nonblock 9; then
        say "Another build of $key is running; waiting for it."
        flock 9
    fi
    if [[ -x $directory/linux ]] && ! $force; then
        say "Already built: $key"
    else
        check_tools
        trap clean_up EXIT
        trap 'exit 130' INT TERM HUP
        build_kernel "$key" "$directory"
    fi
    local release
    release=$(release "$directory/linux")
    say "Its release is $release."
    point_to "$directory/linux" "$CACHE/linux-$(grep -oE '^[0-9]+\.[0-9]+' <<<"$release")-hz$hz"
    [[ -n $kernel ]] || point_to "$directory/linux" "$link"
    printf '%s\n' "$directory/linux"
}

read_arguments() {
    while (($# > 0)); do
        case $1 in
            --kernel) kernel=${2:-}; shift ;;
            --kernel=*) kernel=${1#*=} ;;
            --hz) hz=${2:-}; shift ;;
            --hz=*) hz=${1#*=} ;;
            --source) source=${2:-}; shift ;;
            --source=*) source=${1#*=} ;;
            --jobs) jobs=${2:-}; shift ;;
            --jobs=*) jobs=${1#*=} ;;
            --force) force=true ;;
            --print) print=true ;;
            -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
            *) die 2 "unknown argument: $1 (see --help)" ;;
        esac
        shift || die 2 "a value is missing (see --help)"
    done
    case $hz in
        100 | 250 | 300 | 1000) ;;
        *) die 2 "--hz $hz: expected 100, 250, 300 or 1000" ;;
    esac
    [[ -z $kernel || $kernel =~ ^[0-9]+\.[0-9]+$ ]] ||
        die 2 "--kernel $kernel: expected a version of two numbers, such as 6.1"
    [[ -z $kernel || -z $source ]] ||
        die 2 "--kernel names the version of a package, and --source (or HALFOPEN_UML_SOURCE) a source: leave one of the two out"
    [[ $jobs =~ ^[1-9][0-9]*$ ]] || die 2 "--jobs $jobs: expected a number"
}

# The newest linux-source of the distribution, unless something else is asked
# for. Debian and Ubuntu keep tarballs in /usr/src, Fedora an unpacked tree
# (kernel-devel has no sources: there it takes --source).
find_source() {
    if [[ -z $source ]]; then
        local name=linux-source-${kernel:-*}
        # shellcheck disable=SC2206 # the names are patterns
        local candidates=(/usr/src/$name.tar[.]xz /usr/src/$name.tar[.]bz2 /usr/src/$name/$name.tar[.]bz2)
        if ((${#candidates[@]} > 0)); then
            source=$(printf '%s\n' "${candidates[@]}" | sort -V | tail -n 1)
        fi
    fi
    # What is missing is named at once, the tools with the source.
    [[ -n $source ]] || check_tools
    [[ -e $source ]] || die 3 "no kernel source at $source"
    if [[ -d $source && ! -f $source/arch/um/Kconfig ]]; then
        die 3 "$source is not a kernel source tree: it has no arch/um/Kconfig"
    fi
}

check_tools() {
    local missing=() apt=() dnf=() tools=("${TOOLS[@]}") tool
    [[ $source != *.bz2 ]] || tools+=(bzip2)
    for tool in "${tools[@]}"; do
        command -v "$tool" >/dev/null && continue
        missing+=("$tool")
        case $tool in
            ld) apt+=(binutils); dnf+=(binutils) ;;
            xz) apt+=(xz-utils); dnf+=(xz) ;;
            sha256sum) apt+=(coreutils); dnf+=(coreutils) ;;
            flock) apt+=(util-linux); dnf+=(util-linux) ;;
            *) apt+=("$tool"); dnf+=("$tool") ;;
        esac
    done
    # A static binary needs the C library's static half, which Fedora ships apart.
    if command -v gcc >/dev/null && [[ $(gcc -print-file-name=libc.a) != /* ]]; then
        missing+=("libc.a (static C library)")
        apt+=(libc6-dev)
        dnf+=(glibc-static)
    fi
    if [[ -z $source ]]; then
        missing+=("the source of the kernel${kernel:+ $kernel}")
        apt+=("linux-source${kernel:+-$kernel}")
    fi
    ((${#missing[@]} > 0)) || return 0
    local list
    list=$(printf '%s, ' "${missing[@]}")
    say "$NAME: missing: ${list%, }"
    say "  Debian, Ubuntu:  apt-get install ${apt[*]}"
    if ((${#dnf[@]} > 0)); then
        say "  Fedora:          dnf install ${dnf[*]}"
    fi
    if [[ -z $source ]]; then
        say "  Elsewhere, or without a network: --source DIR|TARBALL (a kernel source),"
        say "  or HALFOPEN_UML=FILE (a ready User Mode Linux binary with time travel)."
    fi
    exit 3
}

# Version, HZ, and a digest of everything that decides what comes out. A
# package's tarball is known by its path, size and time, and so is each file of a
# tree: reading them takes longer than all the rest of a run that finds everything
# built.
key() {
    local version stamp
    if [[ -d $source ]]; then
        version=$(make --no-print-directory -s -C "$source" kernelversion 2>/dev/null || echo tree)
        # Whoever works on a tree changes any of its files.
        stamp=$(find "$source" -name .git -prune -o -type f \
            \( -name '*.[chS]' -o -name 'Kconfig*' -o -name 'Makefile*' -o -name 'Kbuild*' \) \
            -printf '%P %s %T@\n' | sort)
    else
        version=${source##*/}
        version=${version#linux-source-}
        version=${version#linux-}
        version=${version%.tar.*}
        stamp=$(stat --dereference --format='%n %s %Y' -- "$source")
    fi
    local digest
    digest=$({
        printf '%s %s\n' "$stamp" "$hz"
        cat -- "$CONFIG"
        declare -f patch_source configure build_kernel
    } | sha256sum)
    printf '%s-hz%s-%s\n' "${version//[^A-Za-z0-9._-]/_}" "$hz" "${digest:0:12}"
}

# What a kernel says of itself, whatever the name of its source.
release() {
    local text
    text=$(grep -aom1 -E 'Linux version [0-9]+\.[0-9]+[^ ]*' "$1") || die 1 "$1 does not say its release"
    printf '%s\n' "${text##* }"
}

build_kernel() {
    local key=$1 directory=$2 start=$SECONDS
    # What a killed build left behind: nobody else works on this kernel now.
    rm -rf -- "$CACHE/.build-$key."* "$CACHE/.new-$key"
    if [[ -n ${HALFOPEN_UML_WORK:-} ]]; then
        mkdir -p -- "$HALFOPEN_UML_WORK"
        build=$(mktemp -d -- "$HALFOPEN_UML_WORK/halfopen-uml.XXXXXX")
    else
        build=$(mktemp -d -- "$CACHE/.build-$key.XXXXXX")
    fi
    say "Building the virtual kernel $key from $source"
    say "  2 to 8 minutes and 2 GB of disk, once. Working in $build"

    unpack "$build/src"
    patch_source "$build/src"
    configure "$build/src" "$build/obj"

    local -a kbuild=(make -C "$build/src" O="$build/obj" ARCH=um -j "$jobs"
        KBUILD_BUILD_USER=halfopen KBUILD_BUILD_HOST=halfopen
        KBUILD_BUILD_TIMESTAMP=1970-01-01)
    say "  compiling with $jobs jobs"
    "${kbuild[@]}" linux >"$build/log" 2>&1 </dev/null 9>&- &
    compiler=$!
    wait_with_progress "$compiler" || {
        compiler=
        tail -n 30 -- "$build/log" >&2
        die 1 "the kernel did not compile; the last lines are above"
    }
    compiler=

    mkdir -- "$build/result"
    strip -o "$build/result/linux" "$build/obj/linux"
    cp -- "$build/obj/.config" "$build/result/config"
    # Renamed into place: a directory of this name is always complete.
    if [[ $build == "$CACHE"/* ]]; then
        mv -- "$build/result" "$CACHE/.new-$key"
    else
        cp -r -- "$build/result" "$CACHE/.new-$key"
    fi
    rm -rf -- "$directory"
    mv -T -- "$CACHE/.new-$key" "$directory"
    say "Built in $((SECONDS - start)) s: $(stat --format=%s -- "$directory/linux") bytes"
}

# User Mode Linux needs neither the other architectures nor most drivers; what
# the configuration reads (Kconfig files and makefiles) stays.
unpack() {
    local to=$1
    mkdir -- "$to"
    local -a leave_out=(
        --exclude='*/Documentation/*/*' --exclude='*/tools/testing/*'
        --exclude='*/arch/*/boot/dts/*'
        --exclude='*/drivers/gpu/*.[ch]' --exclude='*/drivers/media/*.[ch]'
        --exclude='*/drivers/staging/*.[ch]' --exclude='*/drivers/infiniband/*.[ch]'
        --exclude='*/drivers/net/ethernet/*.[ch]' --exclude='*/drivers/net/wireless/*.[ch]'
        --exclude='*/sound/*.[ch]'
    )
    if [[ -d $source ]]; then
        say "  copying the source tree"
        tar -C "$source" --exclude=./.git "${leave_out[@]}" -cf - . | tar -C "$to" -xf -
    else
        say "  unpacking"
        tar -C "$to" --strip-components=1 "${leave_out[@]}" -xf "$source"
    fi
    [[ -f $to/arch/um/Kconfig ]] || die 1 "$source holds no kernel source: no arch/um/Kconfig in it"
}

# Five small changes, none of them to the network or the timers themselves.
patch_source() {
    local src=$1

    # HZ is fixed at 100: give it a prompt, so that the configuration decides.
    sed -i '/^config HZ$/,/^$/s/^\tint$/\tint "Timer frequency"/' "$src/arch/um/Kconfig"
    grep -q 'int "Timer frequency"' "$src/arch/um/Kconfig" ||
        die 1 "this source's arch/um/Kconfig has no 'config HZ' that this script knows how to open"

    # The size of the floating-point state is fixed below what processors with
    # AMX need. (From 6.13 on it is measured at run time.)
    sed -i 's/DEFINE_LONGS(HOST_FP_SIZE, 2696)/DEFINE_LONGS(HOST_FP_SIZE, 12288)/' \
        "$src/arch/x86/um/user-offsets.c"

    # An idle kernel wakes every 4.3 s (2^32 ns) at least, for no reason that time
    # travel has: 600,000 times in 30 days.
    sed -i -E 's/^(\t\.max_delta_(ns|ticks)\t+= )0xffffffff,/\10x7fffffffffffffff,/' \
        "$src/arch/um/kernel/time.c"
    grep -q 'max_delta_ns.*0x7fffffffffffffff' "$src/arch/um/kernel/time.c" ||
        say "  note: this source's clock has no limit that this script knows; long sleeps may be slow"

    # Two tasks that reap threads of one process empty the same directory of /proc.
    # One waits for the other by asking again (cond_resched): without time no tick
    # ever takes the processor from it, and the other never runs. Let it sleep.
    local dcache=$src/fs/dcache.c
    sed -i -e 's/^#include <linux\/list_lru.h>$/&\n#include <linux\/delay.h>/' \
        -e '/^void shrink_dcache_parent(/,/^}/s/^\t\tdata\.victim = NULL;$/\t\tusleep_range(1, 1);\n&/' \
        "$dcache"
    grep -q 'usleep_range(1, 1);' "$dcache" ||
        say "  note: this source empties directories in a way this script does not know; programs with threads may hang"

    # Randomness comes from the host. With HALFOPEN_SEED in the kernel's own
    # environment it comes from that number instead (splitmix64), so that a run
    # can be repeated; without it nothing changes.
    local util=$src/arch/um/os-Linux/util.c
    sed -i '/^ssize_t os_getrandom(/,/^}/{
/^\treturn getrandom(buf, len, flags);$/i\
\tstatic unsigned long long state;\
\tstatic int seeded = -1;\
\tunsigned char *bytes = buf;\
\tunsigned long long word = 0;\
\tsize_t i;\
\
\tif (seeded < 0) {\
\t\tconst char *seed = getenv("HALFOPEN_SEED");\
\
\t\tseeded = seed != NULL;\
\t\tif (seeded)\
\t\t\tstate = strtoull(seed, NULL, 0);\
\t}\
\tfor (i = 0; seeded \&\& i < len; i++) {\
\t\tif (i % 8 == 0) {\
\t\t\tword = state += 0x9e3779b97f4a7c15ULL;\
\t\t\tword = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9ULL;\
\t\t\tword = (word ^ (word >> 27)) * 0x94d049bb133111ebULL;\
\t\t\tword ^= word >> 31;\
\t\t}\
\t\tbytes[i] = word >> (i % 8 * 8);\
\t}\
\tif (seeded)\
\t\treturn len;
}' "$util"
    grep -q HALFOPEN_SEED "$util" ||
        say "  note: this source draws randomness in a way this script does not know; runs will not be repeatable"
}

configure() {
    local src=$1 obj=$2
    say "  configuring for HZ=$hz"
    mkdir -- "$obj"
    { cat -- "$CONFIG"; printf 'CONFIG_HZ=%s\n' "$hz"; } >"$obj/seed"
    if ! make -C "$src" O="$obj" ARCH=um KCONFIG_ALLCONFIG="$obj/seed" allnoconfig \
        >"$obj/log" 2>&1; then
        tail -n 30 -- "$obj/log" >&2
        die 1 "the kernel could not be configured; the last lines are above"
    fi
    # Options come and go with versions: what this one does not know is said,
    # and what the guest cannot do without ends the build here.
    local line unknown=()
    while read -r line; do
        [[ $line == CONFIG_* ]] || continue
        grep -qxF -- "$line" "$obj/.config" || unknown+=("${line#CONFIG_}")
    done <"$obj/seed"
    ((${#unknown[@]} == 0)) || say "  note: not in this kernel: ${unknown[*]}"
    local option
    for option in "HZ=$hz" UML_TIME_TRAVEL_SUPPORT=y STATIC_LINK=y HOSTFS=y NET_NS=y VETH=y BRIDGE=y; do
        grep -qxF -- "CONFIG_$option" "$obj/.config" || die 1 "this kernel cannot be built with $option"
    done
}

# Waits for the compilation, and says now and then how far it is: the log
# names each file.
wait_with_progress() {
    local pid=$1 start=$SECONDS next=$((SECONDS + 15)) files
    while kill -0 "$pid" 2>/dev/null; do
        sleep 1
        ((SECONDS >= next)) || continue
        next=$((SECONDS + 15))
        files=$(grep -c '^  \(CC\|AS\) ' "$build/log" || true)
        say "  $((SECONDS - start)) s: $files of about 820 files"
    done
    wait "$pid"
}

# Replaces the link in one step, so that whoever looks never finds it missing.
point_to() {
    local target=$1 link=$2
    [[ $(readlink -- "$link" || true) != "$target" ]] || return 0
    ln -sfn -- "$target" "$link.$$"
    mv -T -- "$link.$$" "$link"
}

clean_up() {
    # In the background it does not hear of an interrupt by itself.
    if [[ -n $compiler ]]; then
        kill "$compiler" 2>/dev/null || true
        wait "$compiler" 2>/dev/null || true
    fi
    [[ -z $build ]] || rm -rf -- "$build"
}

main "$@"
