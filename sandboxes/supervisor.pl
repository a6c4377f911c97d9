# Runs inside the sandbox and stands between its commands and the caller. Needs perl and bash, no module beyond perl-base.
#
# On standard input come requests, `OPERATION LENGTH TIMEOUT CAP\n` and LENGTH bytes:
#   S  a command for the shell session
#   F  workdir, NUL, `NAME=value` NUL ..., NUL, a command for a fresh shell
#   R  the path of a file to read; CAP is the most that is read
#   W  path, NUL, octal mode (0: that of the file that is there, 644 for a new one), NUL, content to write
# On standard output goes `ready\n`, then one answer each, `STATUS TIMED_OUT CUT SECONDS FLAG LENGTH\n` and LENGTH bytes:
# the output, or the content. For R and W, STATUS is an errno. FLAG `lost` says that the shell's state was lost.
#
# The session's shell keeps a standby: a copy of itself from before the command, which waits. When the command takes
# longer than it may, everything it started and the shell are killed, and the standby goes on. The same happens when the
# command ends the shell. Output is read here, so that only its head and tail ever leave the sandbox.
use strict;
use warnings;
use POSIX qw(:errno_h :fcntl_h :sys_wait_h);

$0 = 'sandbox-supervisor';
my $alone = shift @ARGV;    # true where no other process of this user is anybody else's
my %call = ((POSIX::uname())[4] =~ /^(aarch64|arm64)/) ? (prctl => 167, clock => 113) : (prctl => 157, clock => 228);
my ($PIPE_BYTES, $KILL_SECONDS, $STANDBY_SECONDS, $FORK_SECONDS) = (65536, 3, 1, 4);
my ($SET_DUMPABLE, $SET_SUBREAPER, $BOOTTIME) = (4, 36, 7);

sub now {
    my $buffer = "\0" x 16;
    return time if syscall($call{clock}, $BOOTTIME, $buffer) != 0;
    my ($seconds, $nanoseconds) = unpack 'qq', $buffer;
    return $seconds + $nanoseconds / 1e9;
}

# Orphans of commands become children of this process, so that everything a command started can be found. Not dumpable:
# commands of the same user can neither trace this process nor write to its files.
syscall($call{prctl}, $SET_SUBREAPER, 1, 0, 0, 0);
syscall($call{prctl}, $SET_DUMPABLE, 0, 0, 0, 0);

$SIG{PIPE} = 'IGNORE';
$SIG{$_} = 'IGNORE' for qw(INT QUIT HUP TERM);
$SIG{CHLD} = sub { };
my %ended;      # pid => exit status, of children that were waited for
my ($main, $standby) = (0, 0);
# The shell's states are numbered: the present one, that which the standby has, and that which one was asked for last.
my ($state, $kept, $asked) = (1, 0, 0);
my ($to_shell, $shell_reads, $to_standby, $status_in, $output_in, $status_text) = (undef, undef, undef, undef, undef, '');
my ($last_status, $last_options, $directory) = (0, '', '.');
my $between;    # what background processes print between commands
my %doomed;     # standbys that were killed and are not gone yet
my @drains;     # output of fresh commands that ended while others hold it open

sub nonblocking { my ($handle) = @_; fcntl($handle, F_SETFL, fcntl($handle, F_GETFL, 0) | O_NONBLOCK); return $handle }

sub reap {
    while ((my $pid = waitpid(-1, WNOHANG)) > 0) {
        $ended{$pid} = $? & 127 ? 128 + ($? & 127) : $? >> 8;
        delete $doomed{$pid};
        ($standby, $kept) = (0, 0) if $pid == $standby;
    }
}

sub lives { my ($pid) = @_; return !exists $ended{$pid} && kill 0, $pid }

sub readable {
    my ($handle) = @_;
    my $reads = '';
    vec($reads, fileno $handle, 1) = 1;
    return select($reads, undef, undef, 0) > 0;
}

# Children that ended are forgotten, except the shell.
sub forget { %ended = map { $_ => $ended{$_} } grep { exists $ended{$_} } $main }

# --- processes

sub processes {
    my %all;
    opendir(my $proc, '/proc') or return \%all;
    for my $pid (grep { /^\d+$/ } readdir $proc) {
        open(my $file, '<', "/proc/$pid/stat") or next;
        local $/;
        my $line = <$file> // next;
        $line =~ s/^.*\) //s;
        my ($state, $parent, @rest) = split ' ', $line;
        $all{$pid} = { parent => $parent, state => $state, began => $rest[17] / 100 };
    }
    return \%all;
}

sub descendants {
    my ($all) = @_;
    my (%children, @found);
    push @{ $children{ $all->{$_}{parent} } }, $_ for keys %$all;
    my @left = @{ $children{$$} // [] };
    while (defined(my $pid = pop @left)) {
        push @found, $pid;
        push @left, @{ $children{$pid} // [] };
    }
    return @found;
}

# Stop first and kill then: what is stopped starts nothing more, and keeps its place in a limit of processes.
sub kill_where {
    my ($wanted, $seconds) = @_;
    my $until = now() + $seconds;
    my %stopped;
    while (1) {
        reap();
        my $all = processes();
        my @targets = grep { $all->{$_}{state} !~ /[ZX]/ && $wanted->($_, $all->{$_}) } descendants($all);
        return 1 unless @targets;
        my @new = grep { !$stopped{$_} } @targets;
        kill 'STOP', @new if @new;
        @stopped{@new} = (1) x @new;
        kill 'KILL', @targets unless @new;
        return 0 if now() > $until;
        select undef, undef, undef, 0.002 unless @new;
    }
}

sub kill_command {
    my ($leader, $began) = @_;
    my $spare = sub { $_[0] != $standby };
    return if kill_where(sub { $spare->($_[0]) && ($_[0] == $leader || $_[1]{began} >= $began - 0.01) }, $KILL_SECONDS);
    return if kill_where(sub { $spare->($_[0]) && $_[0] != ($main || -1) || $_[0] == $leader }, $KILL_SECONDS);
    kill 'KILL', -1 if $alone;
}

# --- the session's shell

# What the shell does, sent to it first, which keeps it off the list of processes. One line, so that the shell counts the
# lines of commands from 1. Descriptors: 6 wakes the standby, 7 brings commands, 8 takes output, 9 takes status.
my $LOOP = 'while IFS= builtin read -r -d "" -u 7 __line; do '
    . 'if [[ $__line == P* ]]; then '
    . '( ( builtin trap - INT QUIT; builtin printf "P %d %s\n" "$BASHPID" "${__line#P}" >&9; builtin read -r -u 6 __line'
    . ' && builtin eval "$__loop" ) & ); '
    . 'else builtin eval "${__line#C}" 0</dev/null 1>&8 2>&1 6<&- 7<&- 8>&- 9>&-; '
    . 'builtin printf "D %d %s\n" "$?" "$-" >&9; fi; done';

my $START = 'IFS= builtin read -r -d "" -u 7 __loop; builtin eval "$__loop"';

sub start_shell {
    my @pipes = map { pipe(my $in, my $out) or return 0; [$in, $out] } 1 .. 4;
    my ($standby_pipe, $command_pipe, $output_pipe, $status_pipe) = @pipes;
    my $pid = fork // return 0;
    if (!$pid) {
        my $null = POSIX::open('/dev/null', O_RDWR);
        POSIX::dup2($null, $_) for 0 .. 2;
        place([6, $standby_pipe->[0]], [7, $command_pipe->[0]], [8, $output_pipe->[1]], [9, $status_pipe->[1]]);
        chdir $directory;
        become($START);
    }
    ($main, $standby, $kept, $asked, $status_text) = ($pid, 0, 0, 0, '');
    ($to_standby, $to_shell, $shell_reads) = ($standby_pipe->[1], $command_pipe->[1], $command_pipe->[0]);
    ($output_in, $status_in) = (nonblocking($output_pipe->[0]), nonblocking($status_pipe->[0]));
    nonblocking($to_shell);
    syswrite $to_shell, "$LOOP\0";
    return 1;
}

# Puts handles at fixed descriptors; they are moved out of the way first.
sub place {
    my @wanted = @_;
    my @high = map { [$_->[0], fcntl($_->[1], F_DUPFD, 64)] } @wanted;
    POSIX::dup2($_->[1] + 0, $_->[0]) for @high;
    POSIX::close($_->[1] + 0) for @high;
}

sub become {
    my ($script) = @_;
    POSIX::setsid();
    syscall($call{prctl}, $SET_DUMPABLE, 1, 0, 0, 0);
    # Memory that runs out is taken from commands, not from this process.
    if (open(my $score, '>', '/proc/self/oom_score_adj')) { syswrite $score, '500' }
    $SIG{$_} = 'DEFAULT' for qw(PIPE INT QUIT HUP TERM CHLD);
    { no warnings 'exec'; exec { 'bash' } 'bash', '--norc', '--noprofile', '-c', $script, 'bash' }
    POSIX::_exit(127);
}

sub ask_for_standby {
    return if $asked == $state || !$main;
    $asked = $state if defined syswrite $to_shell, "P$state\0";
}

# The shell makes the standby before it reads the command, so the command need not wait for word of it; what ends the
# command must.
sub await_standby {
    my ($seconds) = @_;
    my $until = now() + $seconds;
    while ($kept != $state && $asked == $state && now() < $until) {
        wait_for($until, undef, $status_in);
        read_status();
    }
}

# The shell is gone: the standby goes on, or a new one is started. True when its state is kept.
sub replace_shell {
    reap();
    $main = 0;
    read_status();
    if ($standby && lives($standby)) {
        # What the former shell had not read yet is not for this one.
        sysread($shell_reads, my $unread, $PIPE_BYTES) while readable($shell_reads);
        # A former standby that is still dying would take the word that is meant for this one.
        for (1 .. 1000) { last unless %doomed; select undef, undef, undef, 0.001; reap() }
        syswrite $to_standby, "\n";
        ($main, $standby, $kept, $asked) = ($standby, 0, 0, 0);
        return 1;
    }
    start_shell();
    return 0;
}

# Lines that the shell wrote: `P pid state` of a new standby, `D status options` of a command that is done.
sub read_status {
    my $done;
    while (1) {
        my $got = sysread($status_in, my $text, 4096);
        last unless $got;
        $status_text .= $text;
    }
    while ($status_text =~ s/^([PD]) (\d+) (\S*)\n//) {
        if ($1 eq 'D') { ($done, $last_options) = ($2, $3) }
        else { keep($2 + 0, $3) }
    }
    return $done;
}

# A standby says that it is there. It may say so late, when there is already a newer one.
sub keep {
    my ($pid, $number) = @_;
    return unless lives($pid);
    my $older = $number > $kept ? $standby : $pid;
    $doomed{$older} = kill 'KILL', $older if $older;
    ($standby, $kept) = ($pid, $number) if $number > $kept;
}

# --- output

sub new_output { return { head => '', tail => '', total => 0, cap => $_[0] } }

# Reads what is there, `limit` bytes at most; false at the end.
sub take {
    my ($handle, $output, $limit) = @_;
    return 0 unless $handle;
    while ($limit > 0) {
        my $got = sysread($handle, my $text, $PIPE_BYTES);
        return $!{EAGAIN} || $!{EINTR} unless defined $got;
        return 0 if $got == 0;
        $limit -= $got;
        add($output, $text) if $output;
    }
    return 1;
}

sub add {
    my ($output, $text) = @_;
    my $half = int($output->{cap} / 2);
    $output->{total} += length $text;
    my $room = $output->{cap} - $half - length $output->{head};
    $output->{head} .= substr $text, 0, $room, '' if $room > 0;
    $output->{tail} .= $text;
    substr($output->{tail}, 0, length($output->{tail}) - $half, '') if length($output->{tail}) > 2 * $half + $PIPE_BYTES;
}

sub finish {
    my ($output) = @_;
    my $half = int($output->{cap} / 2);
    substr($output->{tail}, 0, length($output->{tail}) - $half, '') if length($output->{tail}) > $half;
    my $cut = $output->{total} - length($output->{head}) - length($output->{tail});
    my $mark = $cut ? "\n[... $cut bytes of output were cut here ...]\n" : '';
    return ($cut, $output->{head} . $mark . $output->{tail});
}

# --- requests

sub answer {
    my ($status, $timed_out, $cut, $seconds, $flag, $body) = @_;
    my $text = sprintf("%d %d %d %.6f %s %d\n", $status, $timed_out, $cut, $seconds, $flag, length $body) . $body;
    my $sent = 0;
    while ($sent < length $text) {
        my $got = syswrite STDOUT, $text, 1 << 18, $sent;
        if (defined $got) { $sent += $got } elsif (!$!{EINTR}) { leave() }
    }
}

sub leave {
    kill_where(sub { 1 }, $KILL_SECONDS);
    POSIX::_exit(0);
}

# Waits until one of the handles can be read, a child ended, or the time has come.
sub wait_for {
    my ($until, $writer, @readers) = @_;
    my ($reads, $writes) = ('', '');
    vec($reads, fileno $_, 1) = 1 for grep { defined } @readers, @drains;
    vec($writes, fileno $writer, 1) = 1 if $writer;
    my $left = $until - now();
    # A child may end just before the wait begins; the short wait makes up for it.
    $left = 0.1 if $left > 0.1;
    select $reads, $writer ? $writes : undef, undef, $left > 0 ? $left : 0;
    @drains = grep { take($_, undef, 16 * $PIPE_BYTES) } @drains;
    reap();
}

sub run_in_session {
    my ($command, $timeout, $cap) = @_;
    my ($began, $output) = (now(), new_output($cap));
    my ($until, $flag, $timed_out, $cleared, $tries) = ($began + $timeout, '-', 0, 0, 0);
    $command = "(exit $last_status); $command" if $last_status && $last_options !~ /e/ && $command =~ /\$(\?|\{\?)/;
    my ($text, $sent, $status) = ("C$command\0", 0, undef);
    add($output, (finish($between))[1]) if $between;
    $between = undef;
    while (!defined $status) {
        start_shell() unless $main;
        ask_for_standby();
        my $sending = $main && $asked == $state && $sent < length $text;
        wait_for($until, $sending ? $to_shell : undef, $output_in, $status_in);
        take($output_in, $output, 16 * $PIPE_BYTES);
        last if defined($status = read_status());
        $sent += syswrite($to_shell, $text, $PIPE_BYTES, $sent) // 0 if $sending;
        if (exists $ended{$main}) {
            await_standby($STANDBY_SECONDS) if $sent;
            # Without a new standby the shell had ended before it came to the command.
            if ($kept == $state || $tries++ > 2) { $status = $ended{$main} }
            else { $sent = 0 }
            take($output_in, $output, 2 * $PIPE_BYTES);
            $flag = 'lost' unless replace_shell();
        }
        elsif (now() >= $until) {
            ($timed_out, $status) = (1, 124);
            await_standby($STANDBY_SECONDS);
            kill_command($main, $began);
            take($output_in, $output, 2 * $PIPE_BYTES);
            $flag = 'lost' unless replace_shell();
        }
        elsif ($kept != $state && !$cleared && now() > $began + $FORK_SECONDS) {
            # No process can be started: what earlier commands left behind must go.
            $cleared = 1;
            kill_where(sub { $_[0] != $main && $_[0] != $standby }, $KILL_SECONDS);
        }
    }
    # The command wrote its output before its status, so it is in the pipe by now.
    take($output_in, $output, 2 * $PIPE_BYTES);
    $last_status = $status;
    $directory = readlink("/proc/$main/cwd") // $directory;
    $state++;
    my ($cut, $body) = finish($output);
    answer($status, $timed_out, $cut, now() - $began, $flag, $body);
    ask_for_standby();
    forget();
}

sub run_fresh {
    my ($body, $timeout, $cap) = @_;
    my ($workdir, $rest) = split /\0/, $body, 2;
    my ($began, $output, %environment) = (now(), new_output($cap));
    while ($rest =~ s/^([^=\0]+)=([^\0]*)\0//) { $environment{$1} = $2 }
    $rest =~ s/^\0//;
    pipe(my $in, my $out) or return answer(254, 0, 0, 0, '-', "bash: $!\n");
    my $until = $began + $timeout;
    my $pid;
    for (1 .. 10) { last if defined($pid = fork); select undef, undef, undef, 0.1 }
    return answer(254, 0, 0, now() - $began, '-', "bash: fork: $!\n") unless defined $pid;
    if (!$pid) {
        my $null = POSIX::open('/dev/null', O_RDONLY);
        POSIX::dup2($null, 0);
        POSIX::dup2(fileno $out, $_) for 1, 2;
        if (length $workdir && !chdir $workdir) { syswrite STDOUT, "bash: cd: $workdir: $!\n"; POSIX::_exit(1) }
        @ENV{keys %environment} = values %environment;
        become($rest);
    }
    close $out;
    nonblocking($in);
    my ($status, $timed_out, $open) = (undef, 0, 1);
    while (!defined $status) {
        wait_for($until, undef, $open ? $in : undef);
        $open &&= take($in, $output, 16 * $PIPE_BYTES);
        if (exists $ended{$pid}) { $status = $ended{$pid} }
        elsif (now() >= $until) { ($timed_out, $status) = (1, 124); kill_command($pid, $began) }
    }
    $open &&= take($in, $output, 2 * $PIPE_BYTES);
    push @drains, $in if $open;
    my ($cut, $text) = finish($output);
    answer($status, $timed_out, $cut, now() - $began, '-', $text);
    forget();
}

sub read_file {
    my ($path, $cap) = @_;
    my $refuse = sub { answer($_[0], 0, 0, 0, '-', '') };
    # A pipe or a device would never end, so it is opened without waiting and looked at first.
    sysopen(my $file, $path, O_RDONLY | O_NONBLOCK) or return $refuse->($! + 0);
    return $refuse->(EISDIR) if -d $file;
    return $refuse->(EINVAL) unless -f $file;
    my $content = '';
    while (1) {
        my $got = sysread $file, $content, 1 << 18, length $content;
        return $refuse->($! + 0) unless defined $got;
        last if $got == 0;
        return $refuse->(EFBIG) if length $content > $cap;
    }
    answer(0, 0, 0, 0, '-', $content);
}

sub write_file {
    my ($path, $mode, $content) = split /\0/, $_[0], 3;
    my $refuse = sub { answer($_[0], 0, 0, 0, '-', '') };
    my $folder = '';
    for my $part (split m{(?<=/)}, $path =~ s{[^/]*$}{}r) {
        $folder .= $part;
        mkdir $folder, 0755 or $!{EEXIST} or $!{EISDIR} or -d $folder or return $refuse->($! + 0);
    }
    sysopen(my $file, $path, O_WRONLY | O_CREAT | O_NONBLOCK, $mode ? 0600 : 0644) or return $refuse->($! + 0);
    return $refuse->(EINVAL) unless -f $file;
    truncate $file, 0 or return $refuse->($! + 0);
    my $sent = 0;
    while ($sent < length $content) {
        my $got = syswrite $file, $content, 1 << 18, $sent;
        return $refuse->($! + 0) unless defined $got;
        $sent += $got;
    }
    !$mode or chmod oct $mode, $file or return $refuse->($! + 0);
    close $file or return $refuse->($! + 0);
    answer(0, 0, 0, 0, '-', '');
}

my $pending = '';
syswrite STDOUT, "ready\n";

# Between requests, the shell and background processes are still listened to.
sub more_input {
    wait_for(now() + 3600, undef, \*STDIN, $output_in, $status_in);
    if ($main) {
        read_status();
        $between //= new_output($PIPE_BYTES);
        take($output_in, $between, 16 * $PIPE_BYTES);
        replace_shell() if exists $ended{$main};
    }
    return unless readable(\*STDIN);
    my $got = sysread STDIN, $pending, 1 << 18, length $pending;
    leave() if defined $got ? $got == 0 : !$!{EINTR};
}

while (1) {
    more_input() until $pending =~ /\n/;
    $pending =~ s/^(\w) (\d+) (\S+) (\d+)\n// or leave();
    my ($operation, $length, $timeout, $cap) = ($1, $2, $3, $4);
    more_input() until length $pending >= $length;
    my $body = substr $pending, 0, $length, '';
    if    ($operation eq 'S') { run_in_session($body, $timeout, $cap) }
    elsif ($operation eq 'F') { run_fresh($body, $timeout, $cap) }
    elsif ($operation eq 'R') { read_file($body, $cap) }
    elsif ($operation eq 'W') { write_file($body) }
    else                      { leave() }
}
