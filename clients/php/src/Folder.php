<?php

namespace Wxauth;

/** The folder in which all PHP processes keep what they have read from wxauth. */
final class Folder
{
    const LOG_PAUSE = 60; // seconds between two log lines about the same cause

    private $path;
    private $issuer;
    private $log;
    private $isChecked = false;

    public function __construct(string $path, string $issuer, callable $log)
    {
        $this->path = $path;
        $this->issuer = $issuer;
        $this->log = $log;
    }

    /**
     * Returns the path of a file of this issuer.
     *
     * @throws Refusal if somebody else could write keys into the folder
     */
    public function file(string $suffix): string
    {
        if (!$this->isChecked) {
            $this->check();
            $this->isChecked = true;
        }
        return "$this->path/" . hash('sha256', $this->issuer) . $suffix;
    }

    /** Writes a file that no other process sees in part. Its mode is 0600. */
    public function write(string $file, string $content): bool
    {
        $new = @tempnam(dirname($file), 'new'); // tempnam sets the mode
        if ($new && @file_put_contents($new, $content) === strlen($content) && @rename($new, $file)) {
            return true;
        }
        $new && @unlink($new);
        ($this->log)("wxauth: could not write $file");
        return false;
    }

    /** Logs a line, unless one of the processes has logged one with the same cause within a minute. */
    public function logOnce(string $cause, string $line)
    {
        $file = $this->file('.log-' . hash('crc32b', $cause));
        clearstatcache(true, $file);
        if (abs(time() - (int) @filemtime($file)) >= self::LOG_PAUSE) {
            @touch($file);
            ($this->log)("wxauth: $line");
        }
    }

    private function check()
    {
        $user = function_exists('posix_geteuid') ? posix_geteuid() : fstat(tmpfile())['uid'];
        if ($this->path === '') {
            $this->path = rtrim(sys_get_temp_dir(), '/') . "/wxauth-keys-$user";
            @mkdir($this->path, 0700);
        }
        clearstatcache(true, $this->path);
        $fault = null;
        if (is_link($this->path) || !is_dir($this->path)) {
            $fault = 'is not a folder';
        } elseif ((fileperms($this->path) & 0777) !== 0700) {
            $fault = sprintf('has mode %04o', fileperms($this->path) & 0777);
        } elseif (fileowner($this->path) !== $user) {
            $fault = 'belongs to user ' . fileowner($this->path) . ", and PHP runs as user $user";
        }
        if ($fault !== null) {
            ($this->log)("wxauth: keys_dir must be a folder with mode 0700 of the user that runs PHP, but $this->path $fault");
            throw new Refusal('keys_unavailable', 'the folder for the keys cannot be used');
        }
    }
}
